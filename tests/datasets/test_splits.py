"""Which images are trained on: validation images that no test row uses, and runs without any leak."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.splits import Survey, same_images, similar_images, validation_groups

images = st.sets(st.integers(0, 12).map(str))


@given(train=images, tested=images, share=st.floats(0.01, 1), seed=st.text(max_size=3))
def test_validation_groups_are_train_images_that_no_test_row_uses(train, tested, share, seed):
    chosen = validation_groups(train, tested, share, seed)
    assert chosen <= train - tested
    assert bool(chosen) == bool(train - tested)
    assert len(chosen) <= max(1, round(share * len(train - tested)))
    assert chosen == validation_groups(train, tested, share, seed)


def test_no_share_moves_nothing():
    assert validation_groups({"1", "2"}, set(), 0, "") == set()


def test_each_row_has_one_place():
    removed = {"train": {"leaks": "why"}, "validation": {"leaks": "for this"}}
    survey = Survey(removed=removed, moved={"moves"})
    for split in ("train", "validation", "test"):
        survey.rows.update(
            {
                (split, "1", ("fine", "leaks")): 1,
                (split, "moves", ("fine",)): 10,
                (split, "stays", ("fine",)): 100,
            }
        )
    assert survey.place("train", "1", ("fine", "leaks")) == ("train", "why")
    assert survey.place("train", "moves", ("leaks",)) == ("validation", "for this")
    assert survey.place("test", "1", ("leaks",)) == ("test", None)
    assert survey.place("train", "moves", ("fine",)) == ("validation", None)
    assert survey.sizes() == {"train": 100, "validation": 10 + 10 + 100, "test": 111}
    assert survey.images("train") == {"fine"} and survey.groups("train") == {"stays"}


def test_a_group_is_removed_from_one_split_with_all_its_images():
    survey = Survey()
    for split in ("train", "validation"):
        survey.rows.update({(split, "patient", ("a", "b")): 1, (split, "other", ("c",)): 1})
    survey.remove_groups("train", {"patient"}, "why")
    assert survey.images("train") == {"c"} and survey.images("validation") == {"a", "b", "c"}


@pytest.fixture
def folder(tmp_path):
    """Two pictures; the first again under another name, and again in another size and format."""
    for name in ("tested", "other"):
        blocks = Image.frombytes("L", (16, 16), random.Random(name).randbytes(256))
        blocks.resize((200, 200)).save(tmp_path / f"{name}.png")
    (tmp_path / "renamed.png").write_bytes((tmp_path / "tested.png").read_bytes())
    Image.open(tmp_path / "tested.png").resize((150, 170)).save(tmp_path / "saved.jpg", quality=60)
    return tmp_path


def test_the_same_are_found_by_content_and_the_similar_by_look(folder):
    held = [folder / "tested.png"]
    own = [folder / name for name in ("renamed.png", "saved.jpg", "other.png")]
    assert same_images(own, held) == {folder / "renamed.png"}
    assert similar_images(own, held) == {folder / "renamed.png", folder / "saved.jpg"}


def test_a_tested_image_without_a_file_is_known_by_its_path(folder):
    gone = folder / "gone.png"
    assert same_images([gone, folder / "other.png"], [gone]) == {gone}
    assert similar_images([folder / "other.png"], [gone]) == set()


def test_an_image_that_cannot_be_decoded_is_named(folder):
    (folder / "other.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="other.png"):
        similar_images([folder / "other.png"], [folder / "tested.png"])
