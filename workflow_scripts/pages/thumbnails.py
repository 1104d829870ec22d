"""Small pictures for pages, as data URIs; of many pictures as small as a page of a bounded size needs them."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from workflow_scripts.base.errors import UserError

SIDE = 200
BUDGET = 12_000_000  # characters that the pictures of a page may take
LADDER = ((224, 75), (200, 65), (160, 60), (128, 50), (96, 40), (64, 30))  # side in pixels, WebP quality
_SAMPLED = 24


@dataclass(frozen=True)
class Thumbnails:
    """Data URIs by picture; `side` in pixels is less than LADDER's first where there are many.

    `missing` counts the pictures for which no room was left, or that cannot be read.
    """

    uris: dict[str, str]
    side: int
    missing: int

    @property
    def reduced(self) -> bool:
        return self.side < LADDER[0][0]


def thumbnail(image: Image.Image) -> str:
    """The picture as a JPEG data URI of at most 200 px a side; the picture itself is left as it was."""
    return _uri(image, SIDE, "jpeg", 80)


def thumbnails(
    names: Sequence[str], open_image: Callable[[str], Image.Image], budget: int = BUDGET
) -> Thumbnails:
    """The pictures as WebP, at the first step of LADDER at which some of them say that all fit into `budget`."""
    step = max(1, len(names) // _SAMPLED)
    sample = [image for name in names[::step] if (image := _opened(name, open_image))]
    side, quality = LADDER[-1]
    for side, quality in LADDER:
        sizes = [len(_uri(image, side, "webp", quality)) for image in sample]
        if sum(sizes) / max(1, len(sizes)) * len(names) <= budget:
            break
    uris: dict[str, str] = {}
    left = budget
    for name in names:
        if (image := _opened(name, open_image)) and len(uri := _uri(image, side, "webp", quality)) <= left:
            uris[name] = uri
            left -= len(uri)
    return Thumbnails(uris, side, len(names) - len(uris))


def _opened(name: str, open_image: Callable[[str], Image.Image]) -> Image.Image | None:
    try:
        return open_image(name)
    except (OSError, UserError):  # the stages before have said so
        return None


def _uri(image: Image.Image, side: int, form: str, quality: int) -> str:
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, form, quality=quality)
    return f"data:image/{form};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
