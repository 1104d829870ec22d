"""Images that look the same are found though their files differ, and only these."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.near_duplicates import MOST_BITS, difference_hash, pairs


def noise(seed, size=(200, 160)):
    return Image.frombytes("L", (16, 16), random.Random(seed).randbytes(256)).resize(size)


def bits(one, other):
    return int(np.bitwise_count(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((90, 120)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.convert("RGB").quantize(64).convert("RGB"),
    ],
)
def test_the_hash_outlives_small_changes(change):
    assert bits(difference_hash(noise(1)), difference_hash(change(noise(1)))) <= MOST_BITS
    assert bits(difference_hash(noise(1)), difference_hash(change(noise(2)))) > 5 * MOST_BITS


hashes = st.dictionaries(st.text(max_size=3), st.binary(min_size=32, max_size=32), max_size=6)


@given(left=hashes, right=hashes, data=st.data())
def test_pairs_are_all_within_the_limit_nearest_first(left, right, data):
    for name in left:
        flipped = data.draw(st.sets(st.integers(0, 255), max_size=MOST_BITS + 3))
        value = int.from_bytes(left[name]) ^ sum(1 << bit for bit in flipped)
        right = right | {f"twin of {name}": value.to_bytes(32)}
    found = pairs(left, right)
    expected = {
        (bits(a, b), one, other)
        for one, a in left.items()
        for other, b in right.items()
        if bits(a, b) <= MOST_BITS
    }
    assert set(found) == expected and len(found) == len(expected)
    assert [distance for distance, *_ in found] == sorted(distance for distance, *_ in found)


def test_neighbouring_slices_of_slake_are_near_duplicates(realdata):
    images = sorted((realdata / "slake/Slake1.0/imgs").glob("xmlab59*/source.jpg"))
    found = near_duplicates.hashes(images)
    names = {
        frozenset((one.parent.name, other.parent.name))
        for _, one, other in pairs(found, found)
        if one != other
    }
    assert {"xmlab596", "xmlab597"} in names
