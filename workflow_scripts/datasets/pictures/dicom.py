"""DICOM files as 8-bit images, shown as their own tags say (PS3.3 C.11: modality LUT, then VOI LUT or window)."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule, chosen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Levels = NDArray[np.number[Any]]

_MARK = b"DICM"  # after a preamble of 128 bytes (PS3.10 7.1)
_BARE = (b"\x02\x00\x00\x00", b"\x08\x00")  # how a data set without a preamble begins: group 0002 or 0008
_FAR = 1e12  # a level beyond any window
# Whose windows are in stored levels: MR has no modality LUT (PS3.3 C.8.3.1), and that of XA and XRF
# is not for display (PS3.3 C.8.7.1.1.2, PS3.4 N.2.1.2).
_WINDOWED_AS_STORED = (
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.12.1",
    "1.2.840.10008.5.1.4.1.1.12.2",
)
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, by its content: old archives leave preamble and mark away."""
    with open(path, "rb") as file:
        head = file.read(132)
    return head[128:] == _MARK or (head.startswith(_BARE) and _is_bare(path))


def _is_bare(path: Path) -> bool:
    """Whether the file is a data set without a preamble: it states its SOP class."""
    import pydicom

    try:
        return "SOPClassUID" in pydicom.dcmread(path, force=True, specific_tags=["SOPClassUID"])
    except Exception:  # whatever else begins with these bytes may raise anything
        return False


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the tags; ValueError where there are none."""
    import pydicom

    _refuse_deflated(path)
    tags = pydicom.dcmread(path, specific_tags=["Rows", "Columns"], stop_before_pixels=True, force=True)
    if not tags.get("Rows") or not tags.get("Columns"):
        raise ValueError("DICOM without an image")
    return tags.Columns, tags.Rows


def open_image(path: Path, rule: FrameRule = FRAMES) -> Image.Image:
    """The frame that `rule` chooses, in mode L or RGB; what cannot be decoded raises whatever pydicom raises.

    Grey levels go the way of PS3.4 N.2.1: modality LUT or rescaling (PS3.3 C.11.1), the first VOI LUT or window
    (C.11.2), the presentation LUT (C.11.4, C.11.6). A window's output range becomes 0..255; without a window that
    shows anything the range of the levels does. MONOCHROME1 (C.7.6.3.1.2) and the presentation LUT shape INVERSE
    state one and the same inversion (C.8.11.3.1.2). Pixel padding is black (C.7.5.1.1.2). Colours become RGB
    (C.7.6.3.1.2), scaled by the bits stored.
    """
    import numpy as np
    from pydicom.pixels import apply_color_lut, pixel_array

    _refuse_deflated(path)
    tags = _read(path)
    index = chosen(range(int(tags.get("NumberOfFrames") or 1)), rule)
    frame = pixel_array(tags, index=index)
    _lift_frame_tags(tags, index)
    if tags.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        shares = _shown(frame, tags)
    elif tags.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(frame, tags)
        shares = colours / np.iinfo(colours.dtype).max
    else:
        shares = frame / (2**tags.BitsStored - 1)
    return Image.fromarray(np.round(255 * shares).astype(np.uint8))


def _read(path: Path) -> "Dataset":
    """The data set, with what pydicom needs to decode it though the file leaves it away or misspells it."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    tags = pydicom.dcmread(path, force=True)
    if not any(name in tags for name in _PIXELS):
        raise ValueError("DICOM without an image")
    if "file_meta" not in tags.__dict__:
        tags.file_meta = FileMetaDataset()
    if not tags.file_meta.get("TransferSyntaxUID"):
        implicit, little = tags.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        tags.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if isinstance(tags.get("PhotometricInterpretation"), str):
        tags.PhotometricInterpretation = tags.PhotometricInterpretation.strip().upper()
    return tags


def _refuse_deflated(path: Path) -> None:
    """A deflated file is inflated whole before its size is known, so it could be a bomb."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        stated = read_file_meta_info(path).get("TransferSyntaxUID")
    except InvalidDicomError:  # no preamble
        return
    if stated == DeflatedExplicitVRLittleEndian:
        raise ValueError("deflated DICOM, whose size shows only once inflated; store it in another syntax")


def _lift_frame_tags(tags: "Dataset", index: int) -> None:
    """Enhanced DICOM keeps window and rescaling of a frame in nested groups (PS3.3 C.7.6.16)."""
    groups = [*(tags.get(_SHARED) or [])[:1], *(tags.get(_PER_FRAME) or [])[index : index + 1]]
    for item in groups:
        for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            for nested in item.get(name) or []:
                tags.update(nested)


def _shown(stored: "Levels", tags: "Dataset") -> "Levels":
    """Stored grey levels as shares of white, 0..1, of the same shape."""
    import numpy as np
    from pydicom.pixels import apply_modality_lut

    padding = _padding(stored, tags)
    if padding.all():
        padding = np.zeros_like(padding)
    stored = np.where(np.isfinite(stored), stored, 0) if stored.dtype.kind == "f" else stored
    _complete_rescaling(tags)
    rescaled = apply_modality_lut(stored, tags)
    as_stored = tags.get("SOPClassUID") in _WINDOWED_AS_STORED
    shares = None
    # A window that misses all levels is stated in the other levels, or wrong.
    for levels in (stored, rescaled) if as_stored else (rescaled, stored):
        shares = _through_voi(levels, tags)
        if shares is not None and (_is_single(stored[~padding]) or not _is_single(shares[~padding])):
            break
    else:
        shares = _stretched(rescaled, padding)
    shares = _presented(shares, tags)
    if tags.PhotometricInterpretation == "MONOCHROME1" or tags.get("PresentationLUTShape") == "INVERSE":
        shares = 1 - shares
    return np.where(padding, 0, shares)


def _complete_rescaling(tags: "Dataset") -> None:
    """Slope 1 and intercept 0 where only the other is stated, or nothing in one: they come together (C.11.1)."""
    if "RescaleSlope" in tags or "RescaleIntercept" in tags:
        tags.RescaleSlope = tags.get("RescaleSlope") or 1  # 0 would make all levels one
        tags.RescaleIntercept = tags.get("RescaleIntercept") or 0


def _is_single(levels: "Levels") -> bool:
    return bool(levels.min() == levels.max())


def _through_voi(levels: "Levels", tags: "Dataset") -> "Levels | None":
    """Shares of white by the first VOI LUT, else the first window; None where there is none of use."""
    if tags.get("VOILUTSequence"):
        return _through_voi_lut(levels, tags)
    width = _first(tags.get("WindowWidth"))
    least = 1 if (tags.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR" else 0  # C.11.2.1.2, C.11.2.1.3
    if _first(tags.get("WindowCenter")) is None or width is None or width < least or width == 0:
        return None
    return _through_window(levels, tags)


def _through_window(levels: "Levels", tags: "Dataset") -> "Levels":
    import numpy as np
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    # Of these alone: pydicom scales by the bits stored, which floats do not have, and by the rescaling.
    window = Dataset()
    window.PhotometricInterpretation = tags.PhotometricInterpretation
    window.BitsStored, window.PixelRepresentation = 16, 0
    window.WindowCenter, window.WindowWidth = _first(tags.WindowCenter), _first(tags.WindowWidth)
    window.VOILUTFunction = tags.get("VOILUTFunction") or "LINEAR"
    with np.errstate(over="ignore"):  # a sigmoid of far levels
        dark, bright = apply_windowing(np.array([-_FAR, _FAR]), window)
        shares: Levels = (apply_windowing(levels, window) - dark) / (bright - dark)
    return shares


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None of none."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = next(iter(value), None)
    return None if value in (None, "") else float(value)


def _stretched(levels: "Levels", padding: "NDArray[np.bool_]") -> "Levels":
    """Shares of the levels' own range, padding apart."""
    import numpy as np

    levels = levels.astype(np.float64)
    low, high = levels[~padding].min(), levels[~padding].max()
    shares: Levels = ((levels - low) / (high - low or 1)).clip(0, 1)
    return shares


def _presented(shares: "Levels", tags: "Dataset") -> "Levels":
    """Through the presentation LUT (PS3.3 C.11.4), whose entries span the whole range from black to white."""
    import numpy as np
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_presentation_lut

    if not tags.get("PresentationLUTSequence"):
        return shares
    table = Dataset()
    table.PresentationLUTSequence = tags.PresentationLUTSequence
    # pydicom spreads the table over the range that it is given: black and white go with the image.
    values = apply_presentation_lut(np.append(shares.ravel(), [0, 1]), table)[:-2]
    presented: Levels = values.reshape(shares.shape) / (
        2 ** table.PresentationLUTSequence[0].LUTDescriptor[2] - 1
    )
    return presented


def _padding(levels: "Levels", tags: "Dataset") -> "NDArray[np.bool_]":
    """Which stored levels stand for "no image here" (PS3.3 C.7.5.1.1.2), with what is no finite number."""
    import numpy as np

    first = tags.get("PixelPaddingValue")
    padding: NDArray[np.bool_] = ~np.isfinite(levels)
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
