"""Which images are trained on and which are not. Everything is decided by whole images."""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts import files
from workflow_scripts.datasets import near_duplicates

IN_A_TEST_SET = "image of a test set"
LIKE_A_TEST_IMAGE = "near-duplicate of a test image"


@dataclass
class Survey:
    """What a source holds and, image by image, what becomes of it.

    `rows` counts the usable rows by (split, image), images by their path below the raw folder; `tested` has the
    images of all test rows, of languages that are not kept too. `removed` gives the images whose train and
    validation rows are dropped, with the reason; train rows of `moved` images go to validation. `copies` says how
    often each train row is written, in their order; None: once.
    """

    read: int = 0
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    tested: set[str] = field(default_factory=set)
    removed: dict[str, str] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    copies: list[int] | None = None

    def images(self, split: str) -> list[str]:
        return [image for part, image in self.rows if part == split]

    def place(self, split: str, image: str) -> tuple[str, str | None]:
        """(split, reason to drop it) of a usable row."""
        if split != "test" and image in self.removed:
            return split, self.removed[image]
        return "validation" if split == "train" and image in self.moved else split, None

    def sizes(self) -> Counter[str]:
        """How many rows each split gets before mixing."""
        sizes: Counter[str] = Counter()
        for (split, image), count in self.rows.items():
            target, reason = self.place(split, image)
            sizes[target] += 0 if reason else count
        return sizes


def validation_images(train: Collection[str], tested: Collection[str], share: float, seed: str) -> set[str]:
    """`share` of the train images that no test row uses, drawn by `seed`, for a set without a validation split.

    A share above zero gives at least one image, where there is one.
    """
    images = sorted(set(train) - set(tested))
    if not images or not share:
        return set()
    return set(random.Random(seed).sample(images, max(1, round(share * len(images)))))


def leaking_images(
    candidates: Collection[Path], tested: Collection[Path], also_near: bool
) -> dict[Path, str]:
    """The `candidates` that hold what a tested image holds, or with `also_near` look like one, with the reason.

    Images are compared by the content of their files: a second name hides nothing. A tested image whose file is
    absent is known by its path. Looking alike is told by `near_duplicates`, for which all files are decoded.
    """
    held = {_content(image) for image in tested}
    found = {image: IN_A_TEST_SET for image in candidates if _content(image) in held}
    if also_near:
        left = [image for image in candidates if image not in found]
        here = [image for image in tested if image.is_file()]
        for _, image, _ in near_duplicates.pairs(near_duplicates.hashes(left), near_duplicates.hashes(here)):
            found[image] = LIKE_A_TEST_IMAGE
    return found


def _content(image: Path) -> str:
    return files.sha256(image) if image.is_file() else str(image)
