"""Rows of a user's own set that must go to one split, for they share an image, an id or a patient."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from workflow_scripts.datasets.records import Example

TEST_SHARE = 0.1
Key = tuple[str, str]  # "id", "image" or "patient", and which


def keys(row: Example) -> list[Key]:
    """What a row shares with others, so that they must be in one split."""
    keys = [("id", row.image_id), *(("image", image) for image in row.images)]
    return [*keys, ("patient", row.patient)] if row.patient else keys


def connected(rows: Iterable[list[Key]]) -> dict[Key, Key]:
    """For each key the least of all keys that rows connect with it."""
    parent: dict[Key, Key] = {}

    def least(key: Key) -> Key:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for keys in rows:
        for key in keys[1:]:
            first, second = sorted((least(keys[0]), least(key)))
            parent[second] = first
    return {key: least(key) for key in parent}


def for_test(rows: Iterable[tuple[Key, str]]) -> set[Key]:
    """The groups to take for the test split from those that no validation row uses; none if there is a test row."""
    splits: dict[Key, set[str]] = defaultdict(set)
    for group, split in rows:
        splits[group].add(split)
    if any("test" in found for found in splits.values()):
        return set()
    free = [group for group, found in splits.items() if "validation" not in found]
    free.sort(key=lambda group: hashlib.sha256(group[1].encode()).digest())
    return set(free[: max(1, round(TEST_SHARE * len(splits)))])
