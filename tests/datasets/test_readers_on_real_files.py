"""The counts and oddities of the real annotation files, which the readers must neither lose nor mend."""

from collections import Counter

import pytest

from workflow_scripts.datasets.images import image_size, open_image
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.errors import UserError


@pytest.fixture(scope="module")
def slake(realdata):
    return list(READERS["slake"](realdata / "slake"))


@pytest.fixture(scope="module")
def rad(realdata):
    return list(READERS["rad"](realdata / "vqa_rad"))


@pytest.fixture(scope="module")
def pathvqa(realdata):
    return list(READERS["pathvqa"](realdata / "pathvqa"))


def counts(examples, *fields):
    return Counter(tuple(getattr(example, field) for field in fields) for example in examples)


def test_slake_counts(slake):
    assert counts(slake, "split", "language") == {
        ("train", "en"): 4919, ("train", "zh"): 4916, ("validation", "en"): 1053,
        ("validation", "zh"): 1046, ("test", "en"): 1061, ("test", "zh"): 1033,
    }  # fmt: skip
    english = [example for example in slake if example.language == "en"]
    assert counts(english, "split", "answer_type")["test", "open"] == 645
    assert counts(english, "split", "answer_type")["test", "closed"] == 416
    assert len({example.id for example in slake}) == 14028
    assert len({example.image_id for example in slake}) == 642


def test_slake_text_is_left_as_it_is(slake):
    assert counts(slake, "answer")["None",] == 44
    assert [example.id.split("-")[2] for example in slake if not example.answer] == ["1622"]
    assert counts(slake, "answer")["Transverse  Plane",] == 91
    assert sum("，" in example.answer for example in slake) > 0
    assert {len(example.facts["triple"]) for example in slake} == {3}


def test_rad_counts(rad):
    assert counts(rad, "split") == {("train",): 1797, ("test",): 451}
    assert counts(rad, "split", "answer_type")["test", "closed"] == 272
    assert counts(rad, "split", "answer_type")["test", "open"] == 179
    phrases = Counter(example.facts["phrase_type"] for example in rad)
    assert phrases == {"freeform": 1206, "para": 591, "test_freeform": 308, "test_para": 143}
    assert len({example.id for example in rad}) == 2248 and len({example.image_id for example in rad}) == 314


def test_rad_oddities(rad):
    by_id = {example.id: example for example in rad}
    assert [by_id[f"rad-{qid}"].answer_type for qid in (2156, 2157)] == ["closed"] * 2
    assert all(by_id[f"rad-{qid}"].answer.isdigit() for qid in (1511, 1568, 1683, 2234, 2235))
    assert counts(rad, "answer")["None",] == 1
    assert sum("\t" in example.question for example in rad) == 6
    assert sum("\ufffd" in example.question for example in rad) == 1
    assert not {"ATRIB", "PRSE", "Other"} & {example.question_type for example in rad}
    assert not any("NULL" in (example.organ, example.question_type) for example in rad)


def test_pathvqa_counts(pathvqa):
    assert counts(pathvqa, "split", "answer_type") == {
        ("train", "open"): 9949, ("train", "closed"): 9806, ("validation", "open"): 3144,
        ("validation", "closed"): 3135, ("test", "open"): 3370, ("test", "closed"): 3391,
    }  # fmt: skip
    images = Counter(split for split, _ in counts(pathvqa, "split", "image_id"))
    assert images == {"train": 2599, "validation": 832, "test": 858}
    assert len({example.id for example in pathvqa}) == len(pathvqa)


def test_pathvqa_answers_have_no_white_space_around(pathvqa):
    assert not any("\u2003" in example.answer for example in pathvqa)
    assert sum("  " in example.question for example in pathvqa) == 433 + 113 + 145


@pytest.mark.parametrize("name", ["slake", "rad", "pathvqa"])
def test_images_lie_where_the_examples_say(name, request, realdata):
    """The sample holds a part of the images, and one of VQA-RAD's that no row asks about."""
    root = realdata / ("vqa_rad" if name == "rad" else name)
    found = {example.image for example in request.getfixturevalue(name) if (root / example.image).exists()}
    assert len(found) == {"slake": 614, "rad": 149, "pathvqa": 150}[name]


def test_images_of_every_mode_open(pathvqa, realdata):
    seen = Counter()
    for image in sorted({example.image for example in pathvqa}):
        path = realdata / "pathvqa" / image
        if path.exists():
            opened = open_image(path)
            seen[opened.mode] += 1
            assert opened.size == image_size(path)
    assert seen == {"RGB": 150}


def test_edited_copies_are_read_or_refused(realdata):
    variants = realdata / "slake" / "variants"
    strings = list(READERS["slake"](variants / "PDAQ1906_en_triple-as-string"))
    assert all(isinstance(example.facts["triple"], list) for example in strings)
    with pytest.raises(UserError):
        list(READERS["slake"](variants / "Jana-SG_nested_by_image"))
