import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures import images
from workflow_scripts.datasets.pictures.images import image_size, open_image

ORIENTATION = 0x0112


def saved(path: Path, image: Image.Image, orientation: int | None = None) -> Path:
    options = {}
    if orientation:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(path, **options)
    return path


def stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def coloured(width: int = 12, height: int = 8) -> Image.Image:
    """Every pixel differs, so a wrong turn shows."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 20, y * 30, x * 0 + 90], axis=2).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb_of_the_same_size(mode, tmp_path):
    suffix = ".png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else ".tif"
    grey = coloured().convert("L")
    image = (
        Image.fromarray(np.asarray(grey).astype(np.uint16)) if mode == "I;16" else coloured().convert(mode)
    )
    path = saved(tmp_path / f"image{suffix}", image)
    opened = open_image(path)
    assert (opened.mode, opened.size, image_size(path)) == ("RGB", (12, 8), (12, 8))


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    red = Image.new("RGB", (16, 16), (220, 30, 30))
    path = saved(tmp_path / "image.jpg", red.convert("CMYK"))
    assert stored_mode(path) == "CMYK"
    assert np.abs(np.asarray(open_image(path)).astype(int) - np.asarray(red)).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_turns_the_image_once(suffix, orientation, tmp_path):
    path = saved(tmp_path / f"image{suffix}", coloured(), orientation)
    turned = Image.Exif()
    turned[ORIENTATION] = orientation
    upright = coloured()
    upright.info["exif"] = turned.tobytes()
    expected = ImageOps.exif_transpose(upright)
    opened = open_image(path)
    assert opened.size == image_size(path) == expected.size
    difference = np.abs(np.asarray(opened).astype(int) - np.asarray(expected)).mean()
    assert difference < 8 if suffix == ".jpg" else difference == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_images_are_rescaled_by_their_own_range(mode, tmp_path):
    ramp = np.linspace(1000, 5095, 64 * 64).reshape(64, 64)
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    path = saved(tmp_path / "image.tif", Image.fromarray(ramp.astype(kind)))
    levels = np.asarray(open_image(path))[:, :, 0].ravel()
    assert stored_mode(path) == mode
    assert (levels[0], levels[-1]) == (0, 255) and (np.diff(levels.astype(int)) >= 0).all()
    assert len(np.unique(levels)) == 256


@given(values=st.lists(st.floats(width=32), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_float_levels_are_rescaled_without_a_warning(values, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "levels.tif"
    saved(path, Image.fromarray(np.array(values, dtype=np.float32).reshape(2, 2)))
    with np.errstate(all="raise"):
        opened = np.asarray(open_image(path))[:, :, 0].ravel()
    finite = [value for value in values if np.isfinite(value)]
    if finite and min(finite) < max(finite):
        assert opened[values.index(max(finite))] == 255 and opened[values.index(min(finite))] == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_black(mode, tmp_path):
    image = Image.new("RGBA", (4, 4), (200, 200, 200, 0))
    image.paste((200, 200, 200, 255), (0, 0, 2, 4))
    path = saved(tmp_path / "image.png", image.quantize() if mode == "P" else image.convert(mode))
    opened = open_image(path)
    assert opened.getpixel((3, 0)) == (0, 0, 0) and min(opened.getpixel((0, 0))) > 190


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(("rule", "colour"), [("first", "black"), ("middle", "red"), ("last", "blue")])
def test_the_frame_of_the_rule_stands_for_all(suffix, rule, colour, tmp_path):
    frames = [Image.new("RGB", (16, 16), name) for name in ("black", "red", "blue")]
    path = tmp_path / f"image{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert open_image(path, rule).getpixel((8, 8)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_by_default_the_middle_frame_stands_for_all(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("black", "red")]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "image.gif").getpixel((0, 0)) == (255, 0, 0)


def test_the_still_of_an_apng_is_no_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("black", "red", "blue")]
    frames[0].save(tmp_path / "image.png", save_all=True, append_images=frames[1:], default_image=True)
    assert open_image(tmp_path / "image.png", "first").getpixel((0, 0)) == (255, 0, 0)


def test_the_small_copies_in_a_tiff_are_no_frames(tmp_path):
    from PIL import TiffImagePlugin

    small = TiffImagePlugin.ImageFileDirectory_v2()
    small[254] = 1
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "image.tif"), True) as file:
        coloured().save(file, "TIFF")
        file.newFrame()
        coloured().resize((3, 2)).save(file, "TIFF", tiffinfo=small)
        file.newFrame()
    assert open_image(tmp_path / "image.tif").size == image_size(tmp_path / "image.tif") == (12, 8)


def test_the_size_is_that_of_the_chosen_page(tmp_path):
    pages = [coloured(), coloured(6, 4)]
    pages[0].save(tmp_path / "image.tif", save_all=True, append_images=pages[1:])
    for rule, size in (("first", (12, 8)), ("middle", (6, 4))):
        assert (
            open_image(tmp_path / "image.tif", rule).size == image_size(tmp_path / "image.tif", rule) == size
        )


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4", "u1"])
def test_the_zero_of_a_tiff_may_be_white(kind, tmp_path):
    levels = np.array([[0, 51, 255]], dtype=kind)
    path = saved(tmp_path / "image.tif", Image.fromarray(levels))
    content, order = bytearray(path.read_bytes()), "<" if path.read_bytes()[:2] == b"II" else ">"
    entry = content.index(struct.pack(f"{order}HHI", 262, 3, 1))
    content[entry + 8 : entry + 10] = struct.pack(f"{order}H", 0)
    path.write_bytes(content)
    expected = [255, 204, 0]
    assert np.asarray(open_image(path))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize("ink", [0, 40])
def test_a_dark_drawing_is_laid_on_white(mode, ink, tmp_path):
    path = tmp_path / "image.png"
    if mode == "L":  # one level stands for transparency
        drawn = Image.new("L", (4, 4), 255)
        drawn.paste(ink, (0, 0, 2, 4))
        drawn.save(path, transparency=255)
    else:
        drawn = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        drawn.paste((ink, ink, ink, 255), (0, 0, 2, 4))
        saved(path, drawn.quantize() if mode == "P" else drawn.convert(mode))
    opened = open_image(path)
    assert opened.getpixel((3, 0)) == (255, 255, 255) and max(opened.getpixel((0, 0))) <= ink


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not a readable image"),
        (None, "no such image"),
    ],
)
def test_what_is_no_image_is_named(read, content, complaint, tmp_path):
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"image\.jpg: .*{complaint}"):
        read(path)


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        ("PNG", "image.jpg", "holds PNG but is named as JPEG"),
        ("JPEG", "image.png", "holds JPEG but is named as PNG"),
        ("PNG", "image.dcm", "holds PNG but is named as DICOM"),
        ("GIF", "IMAGE.TIFF", "holds GIF but is named as TIFF"),
    ],
)
def test_another_formats_extension_is_refused(read, kind, name, complaint, tmp_path):
    coloured().save(tmp_path / name, kind)
    with pytest.raises(UserError, match=f"{name}: {complaint}; give it"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("JPEG", "image.JPEG"), ("JPEG", "image.jpe"), ("MPO", "image.jpg"), ("PNG", "image"), ("PNG", "a.b1")],
)
def test_names_that_promise_no_other_format_are_fine(kind, name, tmp_path):
    coloured().save(tmp_path / name, kind)
    assert open_image(tmp_path / name).size == image_size(tmp_path / name) == (12, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_cut_off_image_is_named(suffix, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"image{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"image\{suffix}: not a readable image .*; replace it"):
        open_image(path)


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_bomb_is_not_decoded(read, side, tmp_path):
    """A head that promises many pixels, over this limit and over Pillow's."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(UserError, match=rf"bomb\.png: .*over the limit of {images.MAX_PIXELS}"):
        read(tmp_path / "bomb.png")


def test_the_size_of_a_jpeg_needs_no_pixels(tmp_path, monkeypatch):
    path = saved(tmp_path / "image.jpg", coloured(), orientation=6)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("the pixels were decoded"))
    assert image_size(path) == (8, 12)


@given(kind=st.sampled_from(("JPEG", "PNG", "TIFF", "GIF", "BMP")), data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")  # what Pillow says of damage that it bears
def test_a_damaged_file_gives_an_image_or_a_user_error(kind, data, tmp_path_factory):
    buffer = io.BytesIO()
    coloured().save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    for read in (open_image, image_size):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error)
