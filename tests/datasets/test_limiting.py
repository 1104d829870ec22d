"""The sample of a try: as many rows as asked for, of each kind, of several images, and the same another time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.limiting import FEWEST_IMAGES, Drawable, choose

KINDS = [("open", "en"), ("closed", "en"), ("open", "zh"), ("closed", "zh")]
ROWS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(KINDS)), max_size=60).map(
    lambda rows: [Drawable(7 * place, f"image-{group}", kind) for place, (group, kind) in enumerate(rows)]
)
LIMITS = st.integers(4, 40)


@given(ROWS, LIMITS)
def test_as_many_as_asked_for_and_one_of_each_kind(rows, limit):
    chosen = choose(rows, limit, "1")
    assert len(chosen) == min(limit, len(rows))
    assert {row.kind for row in rows if row.number in chosen} == {row.kind for row in rows}


@given(ROWS, LIMITS, st.randoms(use_true_random=False))
def test_the_same_whatever_is_read_first_among_images(rows, limit, draw):
    """The seed alone decides, not the order of files on a disk."""
    groups = sorted({row.group for row in rows})
    draw.shuffle(groups)
    moved = [row for group in groups for row in rows if row.group == group]
    assert choose(moved, limit, "1") == choose(rows, limit, "1")


@pytest.mark.parametrize("limit", [8, 32, 100])
def test_images_keep_their_questions_together_and_are_several(limit):
    rows = [Drawable(number, f"image-{number // 14}", KINDS[number % 2]) for number in range(14 * 50)]
    chosen = choose(rows, limit, "slake")
    images = Counter(row.group for row in rows if row.number in chosen)
    assert FEWEST_IMAGES <= len(images) <= FEWEST_IMAGES + limit // 14 + 1
    assert choose(rows, limit, "rad") != chosen


def test_a_rare_kind_is_kept():
    rows = [Drawable(number, f"image-{number}", ("open", "en")) for number in range(1000)]
    rows.append(Drawable(1000, "image-1000", ("closed", "en")))
    assert 1000 in choose(rows, 8, "any")
