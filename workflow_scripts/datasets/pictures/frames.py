"""Which frame stands for a file of several: an animation, a multi-page TIFF, a multi-frame DICOM file."""

from collections.abc import Sequence
from typing import Literal, TypeVar

FrameRule = Literal["middle", "first", "last"]
FRAMES: FrameRule = "middle"  # the first is often blank: a fade-in, the edge of a volume, before the contrast

Frame = TypeVar("Frame")


def chosen(frames: Sequence[Frame], rule: FrameRule) -> Frame:
    """The one of `frames` that stands for all; of an even number the later of the two in the middle."""
    return frames[{"first": 0, "middle": len(frames) // 2, "last": -1}[rule]]
