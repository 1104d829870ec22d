"""Pictures of a run: every bad file is listed, and what shows nothing is named."""

from PIL import Image

from workflow_scripts.datasets.checks.structure import Pictures, PlacedRecord, Problems


def test_blank_pictures_are_warnings_and_all_bad_ones_errors(tmp_path):
    Image.new("RGB", (8, 8), (7, 8, 9)).save(tmp_path / "blank.png")
    Image.effect_noise((64, 64), 80).save(tmp_path / "scan.jpg")
    whole = (tmp_path / "scan.jpg").read_bytes()
    names = [f"cut{number}.jpg" for number in range(30)]
    for number, name in enumerate(names):  # two files of the same content, too
        (tmp_path / name).write_bytes(whole[: 1200 + number // 2])
    errors, warnings = Problems(), Problems()
    pictures = Pictures(tmp_path, lambda width, height: 1, errors, warnings)
    for line, name in enumerate(["blank.png", "scan.jpg", *names], start=1):
        pictures.of(PlacedRecord(f"train.jsonl:{line}", "train", line, {"images": [name]}))
    assert len(pictures.decode()) == 2
    (warning,) = warnings.listed()
    assert warning["examples"] == ["train.jsonl:1: blank.png"]
    (error,) = errors.listed()
    assert error["kind"] == "unreadable image" and len(error["examples"]) == 30
    assert all(any(f"/{name}:" in line for line in error["examples"]) for name in names)
