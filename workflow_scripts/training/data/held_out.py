"""Rows that are validated on and not trained on."""

import random
from collections.abc import Sequence

from datasets import Dataset, concatenate_datasets

from workflow_scripts.base.errors import UserError

LARGEST_SHARE = 0.1  # of the pairs


def add_rows(dataset: Dataset, others: Dataset, limit: int, seed: int) -> tuple[Dataset, list[int]]:
    """`dataset` with up to `limit` rows drawn from `others` behind it, and their numbers."""
    drawn = random.Random(f"{seed}-validation").sample(range(len(others)), min(limit, len(others)))
    both = concatenate_datasets([dataset, others.select(sorted(drawn))])
    return both, list(range(len(dataset), len(both)))


def set_aside(images: Sequence[str], limit: int, seed: int) -> list[int]:
    """The numbers of the rows of some images: up to `limit` rows, at most LARGEST_SHARE of all.

    `images` has the image of each row; all rows of an image go together. A UserError where that leaves none.
    """
    by_image: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        by_image.setdefault(image, []).append(row)
    order = list(by_image)
    random.Random(f"{seed}-validation").shuffle(order)
    limit = min(limit, int(len(images) * LARGEST_SHARE))
    held: list[int] = []
    for image in order:
        if len(held) + len(by_image[image]) <= limit:
            held += by_image[image]
    if not held:
        raise UserError(
            f"validation_steps: of {len(images)} pairs, no image's can be set aside (at most {LARGEST_SHARE:.0%} of all "
            "are); raise preferences.max_pairs, or leave validation_steps empty"
        )
    return sorted(held)
