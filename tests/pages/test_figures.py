"""The charts of an evaluation as files, for what shows no pages."""

from PIL import Image

from workflow_scripts.pages import figures


def test_each_chart_is_a_picture_with_colours_of_its_own(tmp_path, made_evaluation):
    written = figures.write(tmp_path, made_evaluation)
    assert {path.stem for path in written} >= {"accuracy", "by_answer_type", "confusion_yes_no_pathvqa"}
    for path in written:
        with Image.open(path) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
            assert (0x1F, 0x6F, 0x78) in colours or (0x66, 0x70, 0x7A) in colours, path
