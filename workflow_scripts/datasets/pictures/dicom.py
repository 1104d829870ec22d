"""DICOM files as 8-bit images, shown as their own tags say (PS3.3 C.11: modality LUT, then VOI LUT or window)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Levels = NDArray[np.number[Any]]

_MARK = b"DICM"  # after a preamble of 128 bytes (PS3.10 7.1)
_FAR = 1e12  # a level beyond any window


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, by its content."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == _MARK


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the tags; ValueError where there are none."""
    import pydicom

    _refuse_deflated(path)
    tags = pydicom.dcmread(path, specific_tags=["Rows", "Columns"], stop_before_pixels=True)
    if not tags.get("Rows") or not tags.get("Columns"):
        raise ValueError("DICOM without an image")
    return tags.Columns, tags.Rows


def open_image(path: Path) -> Image.Image:
    """The first frame, in mode L or RGB; what cannot be decoded raises whatever pydicom raises.

    Grey levels go through the modality LUT or rescale slope and intercept, then through the first VOI LUT or
    window, whose output range becomes 0..255; without either their own range does, padding apart. MONOCHROME1 is
    inverted. 16-bit colours are scaled by the bits stored.
    """
    import numpy as np
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_color_lut, pixel_array

    _refuse_deflated(path)
    tags = Dataset()
    groups = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    # pydicom takes keywords for tags, but its annotation of this function knows of numbers only.
    frame = pixel_array(path, index=0, ds_out=tags, specific_tags=groups)  # type: ignore[arg-type]
    _lift_first_frame_tags(tags, groups)
    if tags.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        shares = _shown(frame, tags)
        if tags.PhotometricInterpretation == "MONOCHROME1":
            shares = 1 - shares
    elif tags.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(frame, tags)
        shares = colours / np.iinfo(colours.dtype).max
    else:
        shares = frame / (2**tags.BitsStored - 1)
    return Image.fromarray(np.round(255 * shares).astype(np.uint8))


def _refuse_deflated(path: Path) -> None:
    """A deflated file is inflated whole before its size is known, so it could be a bomb."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ValueError("deflated DICOM, whose size shows only once inflated; store it in another syntax")


def _lift_first_frame_tags(tags: "Dataset", groups: list[str]) -> None:
    """Enhanced DICOM keeps window and rescaling of a frame in nested groups (PS3.3 C.7.6.16)."""
    for group in groups:
        for item in (tags.get(group) or [])[:1]:
            for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
                for nested in item.get(name) or []:
                    tags.update(nested)


def _shown(levels: "Levels", tags: "Dataset") -> "Levels":
    """Stored grey levels as shares of white, 0..1, of the same shape."""
    import numpy as np
    from pydicom.pixels import apply_modality_lut, apply_windowing

    padding = _padding(levels, tags)
    levels = apply_modality_lut(levels, tags)
    if tags.get("VOILUTSequence"):
        return _through_voi_lut(levels, tags)
    if tags.get("WindowCenter") is not None and tags.get("WindowWidth") is not None:
        with np.errstate(over="ignore"):  # a sigmoid of far levels
            dark, bright = apply_windowing(np.array([-_FAR, _FAR]), tags)
            windowed: Levels = (apply_windowing(levels, tags) - dark) / (bright - dark)
            return windowed
    levels = levels.astype(np.float64)
    inside = levels[~padding] if not padding.all() else levels
    low, high = inside.min(), inside.max()
    shares: Levels = ((levels - low) / (high - low or 1)).clip(0, 1)
    return shares


def _padding(levels: "Levels", tags: "Dataset") -> "NDArray[np.bool_]":
    """Which stored levels stand for "no image here" (PS3.3 C.7.5.1.1.2)."""
    first = tags.get("PixelPaddingValue")
    padding: NDArray[np.bool_] = levels != levels
    if first is not None:
        last = tags.get("PixelPaddingRangeLimit", first)
        padding = (levels >= min(first, last)) & (levels <= max(first, last))
    return padding


def _through_voi_lut(levels: "Levels", tags: "Dataset") -> "Levels":
    import numpy as np
    from pydicom.pixels import apply_voi

    table = tags.VOILUTSequence[0]
    entries, first, bits = table.LUTDescriptor
    # pydicom 3.0 keeps the indices into an 8-bit table in 8 bits; 16 hold the same entries and any index.
    table.LUTDescriptor = [entries, first, 16]
    inside = np.clip(np.round(levels), first, first + (entries or 2**16) - 1).astype(np.int64)
    shares: Levels = apply_voi(inside, tags) / (2**bits - 1)
    return shares
