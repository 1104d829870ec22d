"""A sample of predictions for a table of a tracker's, with the pictures that were asked about."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.pictures.images import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE = 100  # questions
SIDE = 224  # pixels of a picture's longer side
_SHOWN = ("source", "language", "answer_type", "question", "gold")


@dataclass(frozen=True)
class Asked:
    """A question: what was asked and what each line answered, and the path of its image beside the predictions."""

    values: dict[str, Any]
    image: str


def sample(path: Path) -> list[Asked]:
    """SAMPLE questions of the predictions in `path`, spread evenly: what each line answered to one, side by side."""
    by_question: dict[tuple[str, str], dict[str, Any]] = {}
    images: dict[tuple[str, str], str] = {}
    for row in files.read_jsonl(path):
        key = row["source"], row["id"]
        found = by_question.setdefault(key, {"id": row["id"], **{name: row[name] for name in _SHOWN}})
        found[row["stage"]] = row["answer"]
        if row["stage"] != "shuffled_image":  # asked about another picture
            images[key] = images.get(key) or row["image"]
    step = max(1, -(-len(by_question) // SAMPLE))
    return [Asked(by_question[key], images.get(key, "")) for key in list(by_question)[::step]]


def rows(path: Path, settings: Config, as_shown: Callable[["Image"], Any]) -> list[dict[str, Any]]:
    """The rows of a table of the sample.

    Where trackers may have pictures, those whose picture can be opened, if there are any, with it as `image`.
    """
    found = sample(path)
    if settings.tracking_images:
        opened = [
            (asked, _opened(path.parent / asked.image, settings.data.frames))
            for asked in found
            if asked.image
        ]
        if shown := [
            {"image": as_shown(image), **asked.values} for asked, image in opened if image is not None
        ]:
            return shown
    return [asked.values for asked in found]


def _opened(path: Path, frames: FrameRule) -> "Image | None":
    try:
        image = open_image(path, frames).convert("RGB")
    except (OSError, UserError):  # removed since
        return None
    image.thumbnail((SIDE, SIDE))
    return image
