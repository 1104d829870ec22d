"""Which rows are trained on and which are not."""

import random
from collections.abc import Sequence
from dataclasses import replace

from workflow_scripts.datasets.records import Example


def with_validation(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """`examples` with a validation split: theirs, or `share` of the train images of each source without one.

    Whole images move, so that no validation image is trained on; images that a test row uses stay where they
    are. A share above zero moves at least one image.
    """
    moved: set[tuple[str, str]] = set()
    for source in dict.fromkeys(example.source for example in examples):
        rows = [example for example in examples if example.source == source]
        if any(row.split == "validation" for row in rows):
            continue
        tested = {row.image_id for row in rows if row.split == "test"}
        images = sorted({row.image_id for row in rows if row.split == "train"} - tested)
        if images and share > 0:
            chosen = random.Random(f"{seed}-{source}").sample(images, max(1, round(share * len(images))))
            moved.update((source, image) for image in chosen)
    return [
        replace(example, split="validation")
        if example.split == "train" and (example.source, example.image_id) in moved
        else example
        for example in examples
    ]
