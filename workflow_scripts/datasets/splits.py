"""Which images are trained on and which are not. Everything is decided by whole images."""

import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule

IN_A_TEST_SET = "image of a test set"
IN_A_VALIDATION_SET = "image of a validation set"
OF_A_TESTED_PATIENT = "patient of a test set"
OF_A_VALIDATED_PATIENT = "patient of a validation set"
LIKE_A_TEST_IMAGE = "near-duplicate of a test image"
LIKE_A_VALIDATION_IMAGE = "near-duplicate of a validation image"


@dataclass
class Survey:
    """What a source holds and, image by image, what becomes of it.

    `unusable` counts rows by what they lack, `rows` the others by (split, group, images), images by their path below
    the raw folder. Images of one group belong together, as those of one patient do. `tested` has the images of all
    test rows, of languages that are not kept too, `tested_groups` their groups. `removed` gives, by split, the images
    whose rows are dropped there, with the reason; train rows of `moved` groups go to validation. `kept` has, by split, the
    numbers of the only rows that are kept, as they are read; None: all. `copies` says how often each train row is written,
    in their order; None: once.
    """

    read: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    rows: Counter[tuple[str, str, tuple[str, ...]]] = field(default_factory=Counter)
    tested: set[str] = field(default_factory=set)
    tested_groups: set[str] = field(default_factory=set)
    removed: dict[str, dict[str, str]] = field(default_factory=lambda: {"train": {}, "validation": {}})
    moved: set[str] = field(default_factory=set)
    kept: dict[str, set[int]] | None = None
    copies: list[int] | None = None

    def images(self, split: str) -> set[str]:
        """The images of the rows that a split gets."""
        return {image for _, images in self._placed(split) for image in images}

    def groups(self, split: str) -> set[str]:
        """The groups of the rows that a split gets."""
        return {group for group, _ in self._placed(split)}

    def remove_groups(self, split: str, groups: Collection[str], reason: str) -> None:
        """Remove from a split the images of `groups`."""
        images = {image for group, images in self._placed(split) if group in groups for image in images}
        self.removed[split] |= dict.fromkeys(images, reason)

    def place(self, split: str, group: str, images: tuple[str, ...]) -> tuple[str, str | None]:
        """(split, reason to drop it) of a usable row."""
        split = "validation" if split == "train" and group in self.moved else split
        removed = self.removed.get(split, {})
        return split, next(filter(None, map(removed.get, images)), None)

    def sizes(self) -> Counter[str]:
        """How many rows each split gets before mixing."""
        if self.kept is not None:
            return Counter({split: len(numbers) for split, numbers in self.kept.items()})
        sizes: Counter[str] = Counter()
        for row, count in self.rows.items():
            target, reason = self.place(*row)
            sizes[target] += 0 if reason else count
        return sizes

    def _placed(self, split: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(group, images) of the rows that a split gets."""
        for row in self.rows:
            if self.place(*row) == (split, None):
                yield row[1:]


def validation_groups(train: Collection[str], tested: Collection[str], share: float, seed: str) -> set[str]:
    """`share` of the train groups that no test row has, drawn by `seed`, for a set without a validation split.

    A share above zero gives at least one group, where there is one.
    """
    groups = sorted(set(train) - set(tested))
    if not groups or not share:
        return set()
    return set(random.Random(seed).sample(groups, max(1, round(share * len(groups)))))


def content(image: Path) -> str:
    """What an image is known by: the content of its file, so that a second name hides nothing; else its path."""
    return files.sha256(image) if os.path.isfile(image) else str(image)


def same_images(
    candidates: Collection[Path], held: Collection[Path], content: Callable[[Path], str] = content
) -> set[Path]:
    """The `candidates` whose `content` an image of `held` has."""
    contents = {content(image) for image in held}
    return {image for image in candidates if content(image) in contents}


def similar_images(
    candidates: Collection[Path], held: Collection[Path], frames: FrameRule = FRAMES
) -> set[Path]:
    """The `candidates` that look like an image of `held`, as `near_duplicates` tells, for which all are decoded."""
    here = [image for image in held if os.path.isfile(image)]
    hashes = (near_duplicates.hashes(side, frames) for side in (list(candidates), here))
    return {image for _, image, _ in near_duplicates.pairs(*hashes)}
