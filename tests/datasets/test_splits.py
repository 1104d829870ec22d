"""A validation split is made of whole train images that no test row uses."""

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.records import Example
from workflow_scripts.datasets.splits import with_validation


def rows(split: str, images: list[int], source: str = "rad") -> list[Example]:
    return [
        Example(f"{split}{source}{number}", source, split, f"{image}.jpg", str(image), "?", "a", "open")
        for number, image in enumerate(images)
    ]


images = st.lists(st.integers(0, 12), max_size=40)


@given(train=images, test=images, share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_whole_images_move_and_nothing_is_lost(train, test, share, seed):
    before = rows("train", train) + rows("test", test)
    after = with_validation(before, share, seed)
    assert [row.id for row in after] == [row.id for row in before]
    by_split = {
        split: {row.image_id for row in after if row.split == split}
        for split in ("train", "validation", "test")
    }
    assert not by_split["validation"] & (by_split["train"] | by_split["test"])
    assert bool(by_split["validation"]) == bool(set(train) - set(test))
    assert after == with_validation(before, share, seed)


def test_a_split_that_is_there_is_left_alone():
    before = rows("train", [1, 2]) + rows("validation", [3]) + rows("test", [4])
    assert with_validation(before, 0.5, 0) == before


def test_each_source_without_one_gets_its_own():
    before = (
        rows("train", [1, 2, 3], "rad") + rows("train", [1, 2], "slake") + rows("validation", [9], "slake")
    )
    moved = {
        row.source
        for row in with_validation(before, 0.3, 0)
        if row.split == "validation" and row.image_id != "9"
    }
    assert moved == {"rad"}
