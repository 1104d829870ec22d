"""Any image file as upright 8-bit RGB."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.datasets.pictures import dicom
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule, chosen

MAX_PIXELS = 64_000_000
_ONE_CHANNEL_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_DICOM_SUFFIXES = (".dcm", ".dicom")
_SAME_NAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats that go under the extension of another
_ANIMATED = (
    "GIF",
    "PNG",
    "WEBP",
    "AVIF",
    "TIFF",
    "FLI",
    "DCX",
)  # the further pictures of an MPO are depths or views
_VISIBLE = 64  # the grey that something on black needs to be seen
_NEW_SUBFILE_TYPE, _NO_PAGE = 254, 0b101  # a copy of less resolution, a mask
_SWAPPED_SIDES = (5, 6, 7, 8)  # the EXIF orientations that turn by a quarter


def open_image(path: Path, rule: FrameRule = FRAMES) -> Image.Image:
    """The image in RGB, turned as its EXIF says; of several frames that of `rule`. DICOM is shown as its tags say.

    More than 8 bits are rescaled from the image's own range to 0..255: Pillow's conversion would clip them.
    Transparency is laid on black, the ground of a scan, and what would be all but black there, a drawing, on white;
    the colours under it are arbitrary.
    Anything that cannot be read whole, has over MAX_PIXELS pixels or another format's extension is a UserError.
    """
    with _errors_named(path):
        if dicom.is_dicom(path):
            _dicom_size(path)
            return dicom.open_image(path, rule).convert("RGB")
        with _opened(path, rule) as image:
            inverted = _is_white_zero(image)
            return _to_rgb(ImageOps.exif_transpose(image), inverted)


def image_size(path: Path, rule: FrameRule = FRAMES) -> tuple[int, int]:
    """(width, height) of what `open_image` gives, from the file's head.

    Only a PNG without EXIF before its pixels is decoded, for it may still follow them.
    """
    with _errors_named(path):
        if dicom.is_dicom(path):
            return _dicom_size(path)
        with _opened(path, rule, pages_only=True) as image:
            width, height = image.size
            # Pillow states the size of a TIFF, and of no other format, as it will be once turned.
            if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in _SWAPPED_SIDES:
                return height, width
            return width, height


def needs_rendering(path: Path) -> bool:
    """Whether other programs would not show what `open_image` gives: they read no DICOM, and the first frame alone."""
    with _errors_named(path):
        if dicom.is_dicom(path):
            return True
        with Image.open(path) as image:
            return image.format in _ANIMATED and len(_frames(image)) > 1


def write_png(path: Path, target: Path, rule: FrameRule = FRAMES) -> None:
    """What `open_image` gives of `path` as a PNG, for programs that do not show it so."""
    image = open_image(path, rule)
    with files.replacing(target) as temporary:
        image.save(temporary, "PNG")


def _dicom_size(path: Path) -> tuple[int, int]:
    size = dicom.image_size(path)
    _check(path, "DICOM", size)
    return size


@contextmanager
def _opened(path: Path, rule: FrameRule, pages_only: bool = False) -> Iterator[Image.Image]:
    """The file at the frame of `rule`; with `pages_only`, only where frames may differ in size."""
    with Image.open(path) as image:
        _check(path, image.format or "", image.size)
        if image.format in (("TIFF",) if pages_only else _ANIMATED) and getattr(image, "n_frames", 1) > 1:
            image.seek(chosen(_frames(image), rule))
            _check(path, image.format or "", image.size)
        yield image


def _frames(image: Image.Image) -> list[int]:
    """The numbers of the frames that show the picture.

    Left out are a TIFF's small copies and masks (NewSubfileType, TIFF 6.0 section 8), and the picture that an APNG
    has for programs that do not play it.
    """
    numbers = list(range(getattr(image, "n_frames", 1)))
    if image.format == "PNG" and image.info.get("default_image"):
        return numbers[1:] or numbers
    if isinstance(image, TiffImagePlugin.TiffImageFile) and len(numbers) > 1:
        return [number for number in numbers if not _subfile_type(image, number) & _NO_PAGE] or numbers
    return numbers


def _subfile_type(image: TiffImagePlugin.TiffImageFile, number: int) -> int:
    image.seek(number)
    return int(image.tag_v2.get(_NEW_SUBFILE_TYPE, 0))


def _check(path: Path, kind: str, size: tuple[int, int]) -> None:
    """Refuse too large an image, and one that is named as another format: other programs go by the name."""
    if size[0] * size[1] > MAX_PIXELS:
        pixels = f"{size[0]} x {size[1]} pixels"
        raise UserError(f"{path}: {pixels} are over the limit of {MAX_PIXELS}; make the image smaller")
    named = _format_of(Path(path).suffix.lower())
    if named and named != _SAME_NAME.get(kind, kind):
        raise UserError(f"{path}: holds {kind} but is named as {named}; give it its format's extension")


def _format_of(suffix: str) -> str | None:
    """The format that a file name promises; None where it promises none."""
    return "DICOM" if suffix in _DICOM_SUFFIXES else Image.registered_extensions().get(suffix)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Whatever is raised inside becomes a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such image; fetch the set again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path}: over the limit of {MAX_PIXELS} pixels; make the image smaller") from None
    except Exception as error:  # a damaged file may raise anything
        reason = "the file is empty" if _is_empty(path) else brief(error)
        raise UserError(f"{path}: not a readable image ({reason}); replace it or remove its rows") from None


def _is_empty(path: Path) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size == 0


def _is_white_zero(image: Image.Image) -> bool:
    """Whether it is a deep TIFF whose zero is white (TIFF 6.0, PhotometricInterpretation 0): Pillow inverts others."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    return image.mode in _ONE_CHANNEL_DEEP and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


# Pillow knows some layouts of deep TIFF only with zero as black; with zero as white they are stored alike.
for _layout, _modes in list(TiffImagePlugin.OPEN_INFO.items()):
    if _layout[1] == 1 and _modes[0] in _ONE_CHANNEL_DEEP:
        TiffImagePlugin.OPEN_INFO.setdefault((_layout[0], 0, *_layout[2:]), _modes)


def _to_rgb(image: Image.Image, inverted: bool = False) -> Image.Image:
    if image.mode in _ONE_CHANNEL_DEEP:
        return _rescaled(image, inverted).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        on_black = _laid_on(image, "black")
        brightest = max(level for level, count in enumerate(on_black.convert("L").histogram()) if count)
        transparent = sum(image.getchannel("A").histogram()[:255])
        return on_black if not transparent or brightest >= _VISIBLE else _laid_on(image, "white")
    return image.convert("RGB")


def _laid_on(image: Image.Image, ground: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _rescaled(image: Image.Image, inverted: bool) -> Image.Image:
    """Deep grey levels as 8 bits: the darkest 0, the brightest 255; what is not finite counts as darkest."""
    import numpy as np

    levels = np.asarray(image).astype(np.float64) * (-1 if inverted else 1)
    finite = np.isfinite(levels)
    low, high = (levels[finite].min(), levels[finite].max()) if finite.any() else (0.0, 0.0)
    span = high - low or 1.0
    return Image.fromarray(np.round(np.where(finite, levels - low, 0) * (255 / span)).astype(np.uint8))
