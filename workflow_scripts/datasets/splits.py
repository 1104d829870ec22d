"""Which images are trained on and which are not. Everything is decided by whole images."""

import os
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule

IN_A_TEST_SET = "image of a test set"
LIKE_A_TEST_IMAGE = "near-duplicate of a test image"


@dataclass
class Survey:
    """What a source holds and, image by image, what becomes of it.

    `unusable` counts rows by what they lack, `rows` the others by (split, group, images), images by their path below
    the raw folder. Images of one group belong together, as those of one patient do. `tested` has the images of all
    test rows, of languages that are not kept too, `tested_groups` their groups. `removed` gives the images whose train
    and validation rows are dropped, with the reason; train rows of `moved` groups go to validation. `copies` says how
    often each train row is written, in their order; None: once.
    """

    read: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    rows: Counter[tuple[str, str, tuple[str, ...]]] = field(default_factory=Counter)
    tested: set[str] = field(default_factory=set)
    tested_groups: set[str] = field(default_factory=set)
    removed: dict[str, str] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    copies: list[int] | None = None

    def images(self, split: str) -> set[str]:
        """The images of the usable rows of a split."""
        return {image for part, _, images in self.rows if part == split for image in images}

    def groups(self, split: str) -> set[str]:
        """The groups of the rows of a split that stay."""
        return {
            group for part, group, images in self.rows if part == split and not self._reason(part, images)
        }

    def place(self, split: str, group: str, images: tuple[str, ...]) -> tuple[str, str | None]:
        """(split, reason to drop it) of a usable row."""
        if reason := self._reason(split, images):
            return split, reason
        return "validation" if split == "train" and group in self.moved else split, None

    def sizes(self) -> Counter[str]:
        """How many rows each split gets before mixing."""
        sizes: Counter[str] = Counter()
        for (split, group, images), count in self.rows.items():
            target, reason = self.place(split, group, images)
            sizes[target] += 0 if reason else count
        return sizes

    def _reason(self, split: str, images: tuple[str, ...]) -> str | None:
        return None if split == "test" else next(filter(None, map(self.removed.get, images)), None)


def validation_groups(train: Collection[str], tested: Collection[str], share: float, seed: str) -> set[str]:
    """`share` of the train groups that no test row has, drawn by `seed`, for a set without a validation split.

    A share above zero gives at least one group, where there is one.
    """
    groups = sorted(set(train) - set(tested))
    if not groups or not share:
        return set()
    return set(random.Random(seed).sample(groups, max(1, round(share * len(groups)))))


def leaking_images(
    candidates: Collection[Path], tested: Collection[Path], also_near: bool, frames: FrameRule = FRAMES
) -> dict[Path, str]:
    """The `candidates` that hold what a tested image holds, or with `also_near` look like one, with the reason.

    Images are compared by the content of their files: a second name hides nothing. A tested image whose file is
    absent is known by its path. Looking alike is told by `near_duplicates`, for which all files are decoded.
    """
    held = {_content(image) for image in tested}
    found = {image: IN_A_TEST_SET for image in candidates if _content(image) in held}
    if also_near:
        left = [image for image in candidates if image not in found]
        here = [image for image in tested if os.path.isfile(image)]
        for _, image, _ in near_duplicates.pairs(
            *(near_duplicates.hashes(side, frames) for side in (left, here))
        ):
            found[image] = LIKE_A_TEST_IMAGE
    return found


def _content(image: Path) -> str:
    return files.sha256(image) if os.path.isfile(image) else str(image)
