"""Any image file as upright 8-bit RGB."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from workflow_scripts.errors import UserError

MAX_PIXELS = 64_000_000
_ONE_CHANNEL_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_SWAPPED_SIDES = (5, 6, 7, 8)  # the EXIF orientations that turn by a quarter


def open_image(path: Path) -> Image.Image:
    """The image in RGB, turned as its EXIF says; the first frame of several.

    More than 8 bits are rescaled from the image's own range to 0..255: Pillow's conversion would clip them.
    Transparency is laid on black, the ground of a scan; the colours under it are arbitrary.
    Anything that cannot be read whole, or has over MAX_PIXELS pixels, is a UserError.
    """
    with _opened(path) as image:
        return _to_rgb(ImageOps.exif_transpose(image))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of what `open_image` gives, from the file's head.

    Only a PNG without EXIF before its pixels is decoded, for it may still follow them.
    """
    with _opened(path) as image:
        width, height = image.size
        # Pillow states the size of a TIFF, and of no other format, as it will be once turned.
        if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in _SWAPPED_SIDES:
            return height, width
        return width, height


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file opened and within MAX_PIXELS; whatever is raised meanwhile becomes a UserError."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise UserError(f"{path}: {size} are over the limit of {MAX_PIXELS}; make the image smaller")
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such image; fetch the set again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path}: over the limit of {MAX_PIXELS} pixels; make the image smaller") from None
    except Exception as error:  # a damaged file may raise anything
        reason = "the file is empty" if _is_empty(path) else error
        raise UserError(f"{path}: not a readable image ({reason}); replace it or remove its rows") from None


def _is_empty(path: Path) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size == 0


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _ONE_CHANNEL_DEEP:
        return _rescaled(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def _rescaled(image: Image.Image) -> Image.Image:
    """Deep grey levels as 8 bits: the darkest 0, the brightest 255; what is not finite counts as darkest."""
    import numpy as np

    levels = np.asarray(image).astype(np.float64)
    finite = np.isfinite(levels)
    low, high = (levels[finite].min(), levels[finite].max()) if finite.any() else (0.0, 0.0)
    span = high - low or 1.0
    return Image.fromarray(np.round(np.where(finite, levels - low, 0) * (255 / span)).astype(np.uint8))
