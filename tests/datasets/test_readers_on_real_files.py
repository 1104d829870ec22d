"""The counts and oddities of the real annotation files, of which the readers must lose none in silence."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import read_json
from workflow_scripts.datasets import readers
from workflow_scripts.datasets.pictures.images import image_size, open_image
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.readers.rad import QUESTION_TYPES

RAD_FACTS = (
    "qid_linked_id", "phrase_type", "question_rephrase", "question_relation", "question_frame", "evaluation",
    "image_case_url",
)  # fmt: skip


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


def untidy(example):
    """Whether question or answer has white space but single spaces between words."""
    return any(text != " ".join(text.split()) for text in (example.question, example.answer))


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


def test_slake_oddities(slake):
    assert counts(slake, "answer", "language")["None", "en"] == counts(slake, "answer")["None",] == 44
    nones = Counter(example.split for example in slake if example.answer == "None")
    assert nones == {"train": 29, "validation": 6, "test": 9}
    assert [example.id.split("-")[2] for example in slake if not example.answer] == ["1622"]
    assert {len(example.facts["triple"]) for example in slake} == {3}
    assert {example.facts["base_type"] for example in slake} == {"vqa", "kvqa"}
    assert counts(slake, "split", "answer_type") == {
        ("train", "open"): 5954, ("train", "closed"): 3881, ("validation", "open"): 1255,
        ("validation", "closed"): 844, ("test", "open"): 1258, ("test", "closed"): 836,
    }  # fmt: skip
    kvqa = Counter(example.split for example in slake if example.facts["base_type"] == "kvqa")
    assert kvqa == {"train": 1174, "validation": 299, "test": 267}


def test_slake_double_spaces_are_tidied_and_nothing_else(slake):
    changed = [example for example in slake if example.stated]
    assert len(changed) == 91 and {example.language for example in changed} == {"en"}
    assert {(example.stated["answer"], example.answer) for example in changed} == {
        ("Transverse  Plane", "Transverse Plane")
    }
    assert not any(map(untidy, slake))
    # A full-width comma is a mark of its own.
    assert [example.answer.count("，") for example in slake if "，" in example.answer] == [2, 3, 2]


def test_slake_closed_by_either_definition(slake):
    closed = [example for example in slake if example.answer_type == "closed"]
    english = Counter((example.split, example.yes_no) for example in closed if example.language == "en")
    assert (
        sum(count for (_, yes_no), count in english.items() if not yes_no) == 387 and english.total() == 2781
    )
    assert english["test", True] + english["test", False] == 416
    words = Counter(example.answer for example in closed if example.language == "zh" and example.yes_no)
    seen = {"不是": 483, "不包含": 461, "包含": 459, "是的": 452, "没有": 206, "有": 139}
    assert seen.items() <= words.items()
    opened = Counter(
        example.language for example in slake if example.yes_no and example.answer_type == "open"
    )
    assert opened == {"zh": 20}


def test_slake_answers_that_differ_in_case_only_stay_apart(slake):
    spellings = {}
    for example in slake:
        if example.language == "en":
            spellings.setdefault(example.answer.lower(), set()).add(example.answer)
    assert sum(len(found) > 1 for found in spellings.values()) == 9


def test_slake_duplicate_questions_are_all_kept(slake):
    asked = counts(slake, "split", "language", "image_id", "question")
    repeated = Counter(key[:2] for key, count in asked.items() if count > 1)
    assert repeated == {("train", "en"): 7, ("train", "zh"): 7}


def test_slake_boxes_are_the_bounds_of_the_masks(slake, realdata):
    """The sample has the boxes of 150 images and 7 masks, of which three are empty and one is no label image."""
    boxes = {example.image_id: example.facts["boxes"] for example in slake if "boxes" in example.facts}
    assert len(boxes) == 150 and sum(not found for found in boxes.values()) == 20
    assert sum(map(len, boxes.values())) == 356
    masks = {example.image_id: realdata / "slake" / example.mask for example in slake if example.mask}
    levels = {image: np.asarray(Image.open(path).convert("RGB"))[..., 0] for image, path in masks.items()}
    assert len(levels) == 7
    assert {image for image, mask in levels.items() if not mask.any()} == {"xmlab34", "xmlab53", "xmlab77"}
    assert not boxes["xmlab34"] and not boxes["xmlab53"] and not boxes["xmlab77"]
    names = dict(
        line.split(":") for line in (realdata / "slake/Slake1.0/mask.txt").read_text().split("\n") if line
    )
    for image in ("xmlab438", "xmlab439", "xmlab532"):
        edema = next(item["box"] for item in boxes[image] if item["label"] == "Brain Edema")
        rows, columns = np.where(
            levels[image] == int(next(key for key in names if names[key] == "Brain Edema"))
        )
        assert edema == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_slake_knowledge(realdata):
    facts = list(readers.knowledge("slake", realdata / "slake"))
    assert Counter((fact["language"], fact["graph"]) for fact in facts) == {
        ("zh", "disease"): 2216, ("zh", "organ"): 307, ("zh", "organ_rel"): 103,
        ("en", "disease"): 2216, ("en", "organ"): 281, ("en", "organ_rel"): 103,
    }  # fmt: skip
    assert all(fact["head"] and fact["relation"] and fact["tail"] for fact in facts)
    assert sum("，" in fact["tail"] for fact in facts) == 977 + 65


def test_rad_counts(rad):
    assert counts(rad, "split") == {("train",): 1797, ("test",): 451}
    assert counts(rad, "split", "answer_type")["test", "closed"] == 272
    assert counts(rad, "split", "answer_type")["test", "open"] == 179
    phrases = Counter(example.facts["phrase_type"] for example in rad)
    assert phrases == {"freeform": 1206, "para": 591, "test_freeform": 308, "test_para": 143}
    assert len({example.id for example in rad}) == 2248 and len({example.image_id for example in rad}) == 314


def test_rad_oddities(rad, realdata):
    by_id = {example.id: example for example in rad}
    raw = read_json(realdata / "vqa_rad/VQA_RAD Dataset Public.json")
    assert [by_id[f"rad-{qid}"].answer_type for qid in (2156, 2157)] == ["closed"] * 2
    assert Counter(row["answer_type"] for row in raw)["CLOSED "] == 2
    assert {row["qid"] for row in raw if isinstance(row["answer"], int)} == {1511, 1568, 1683, 2234, 2235}
    assert all(by_id[f"rad-{qid}"].answer.isdigit() for qid in (1511, 1568, 1683, 2234, 2235))
    assert [row["qid"] for row in raw if isinstance(row["qid"], str)] == ["0"] and "rad-0" in by_id
    assert counts(rad, "answer")["None",] == 1
    assert not any(
        "NULL" in (example.organ, example.question_type, *example.facts.values()) for example in rad
    )
    absent = Counter(key for example in rad for key in RAD_FACTS if key not in example.facts)
    assert absent == {"question_rephrase": 461 + 2, "question_frame": 981, "question_relation": 761}
    assert len(counts(rad, "image_id", "question", "answer")) == 2248 - 4
    assert len({example.linked_id for example in rad}) == 1453 and all(example.linked_id for example in rad)


def test_rad_white_space_is_tidied_and_the_lost_apostrophe_found(rad):
    changed = Counter(field for example in rad for field in example.stated)
    assert changed == {"question": 6 + 1 + 1, "answer": 5 + 1}
    stated = [(field, text) for example in rad for field, text in example.stated.items()]
    assert Counter(field for field, text in stated if "\t" in text) == {"question": 6, "answer": 5}
    assert not any(map(untidy, rad))
    (lost,) = [example for example in rad if "\ufffd" in example.stated.get("question", "")]
    assert lost.id == "rad-2136" and lost.question.startswith("How can you tell if it’s the common")
    assert not any(
        "\ufffd" in text for example in rad for text in (example.question, *example.facts.values())
    )


def test_rad_question_types_come_from_a_closed_list(rad, realdata):
    spellings = {row["question_type"] for row in read_json(realdata / "vqa_rad/VQA_RAD Dataset Public.json")}
    assert len(spellings) == 26
    found = counts(rad, "question_type")
    assert {single for (types,) in found for single in types.split(", ")} == set(QUESTION_TYPES)
    assert len(found) == 11 + 8 and found["PRES",] == 800 + 1 and found["OTHER",] == 194 + 2
    assert found["POS, PRES",] == 6 + 4 and found["ATTRIB",] == 87 + 1


def test_rad_closed_by_either_definition(rad):
    test = Counter((example.answer_type, example.yes_no) for example in rad if example.split == "test")
    assert test == {("closed", True): 251, ("closed", False): 21, ("open", False): 179}
    assert sum(example.answer_type == "closed" and not example.yes_no for example in rad) == 106
    yes_no = Counter(example.answer for example in rad if example.yes_no)
    assert yes_no == {"No": 486, "Yes": 347, "yes": 239, "no": 120, "YES": 1}


@pytest.mark.parametrize("suffix", [".xml", ".xlsx"])
def test_rad_is_the_same_in_all_public_files(suffix, rad, realdata, tmp_path):
    name = f"VQA_RAD Dataset Public{suffix}"
    (tmp_path / name).symlink_to(realdata / "vqa_rad" / name)
    others = list(READERS["rad"](tmp_path))
    # What the other files lost the sheet states, so that there it needs no mending.
    mended = {"rad-2136"} if suffix == ".xlsx" else set()
    assert len(others) == 2248
    for example, other in zip(rad, others, strict=True):
        assert replace(example, stated={}) == replace(other, stated={})
        assert (example.stated == other.stated) != (example.id in mended)


def test_the_mevf_variant(rad, realdata, tmp_path):
    (tmp_path / "data_RAD").symlink_to(realdata / "vqa_rad/data_RAD")
    (tmp_path / "VQA_RAD Image Folder").symlink_to(realdata / "vqa_rad/VQA_RAD Image Folder")
    mevf = list(READERS["rad"](tmp_path))
    assert counts(mevf, "split") == {("train",): 3064, ("test",): 451}
    phrases = Counter(example.facts["phrase_type"] for example in mevf if example.split == "train")
    assert phrases == {"freeform": 1206, "frame": 1267, "para": 591}
    assert counts(mevf, "split", "answer_type")["test", "closed"] == 272
    assert len({example.id for example in mevf}) == len(mevf) == 3515
    # The question numbers are others, the test rows are those of the public set.
    assert not {example.id for example in mevf} & {example.id for example in rad}
    asked = [
        counts([row for row in rows if row.split == "test"], "image_id", "question", "answer")
        for rows in (rad, mevf)
    ]
    assert asked[0] == asked[1]
    trained = counts([row for row in mevf if row.split == "train"], "image_id", "question", "answer")
    assert sum(count for key, count in asked[1].items() if key in trained) == 14
    assert not any(map(untidy, mevf)) and counts(mevf, "answer")["None",] == 1
    found = {example.image for example in mevf if (tmp_path / example.image).exists()}
    assert len(found) == 149


def test_pathvqa_counts(pathvqa):
    assert counts(pathvqa, "split", "answer_type") == {
        ("train", "open"): 9949, ("train", "closed"): 9806, ("validation", "open"): 3144,
        ("validation", "closed"): 3135, ("test", "open"): 3370, ("test", "closed"): 3391,
    }  # fmt: skip
    images = Counter(split for split, _ in counts(pathvqa, "split", "image_id"))
    assert images == {"train": 2599, "validation": 832, "test": 858}
    assert len({example.id for example in pathvqa}) == len(pathvqa)


def test_pathvqa_oddities(pathvqa):
    """The whitespace of the tokenised questions' " ?" is the set's own and stays."""
    stated = [(example.split, field, text) for example in pathvqa for field, text in example.stated.items()]
    padded = Counter(split for split, field, text in stated if field == "answer" and text != text.strip())
    assert padded == {"train": 201, "validation": 63, "test": 52}
    assert sum("\u2003" in text for _, _, text in stated) == 1
    doubled = Counter((split, field) for split, field, text in stated if "  " in text)
    assert doubled == {
        ("train", "question"): 433, ("validation", "question"): 113, ("test", "question"): 145,
        ("train", "answer"): 2, ("test", "answer"): 2,
    }  # fmt: skip
    assert not any(map(untidy, pathvqa))
    assert Counter(example.split for example in pathvqa if example.question.endswith(" ?")) == {
        "train": 1931, "validation": 642, "test": 720
    }  # fmt: skip
    types = Counter((example.split, example.facts["answer_type"]) for example in pathvqa)
    assert [types[split, "number"] for split in ("train", "validation", "test")] == [62, 21, 18]
    assert all(example.yes_no == (example.answer_type == "closed") for example in pathvqa)


def test_pathvqa_repeats_are_all_kept(pathvqa):
    """As the files have them, the distinct rows are those of the hub; two of test differ in white space only."""
    stated = Counter(
        (
            example.split,
            example.image_id,
            *({"question": example.question, "answer": example.answer} | example.stated).values(),
        )
        for example in pathvqa
    )
    assert Counter(split for split, *_ in stated) == {"train": 19654, "validation": 6259, "test": 6719}
    tidied = Counter(split for split, *_ in counts(pathvqa, "split", "image_id", "question", "answer"))
    assert tidied == {"train": 19755 - 101, "validation": 6279 - 20, "test": 6761 - 43}
    answers = defaultdict(set)
    for example in pathvqa:
        answers[example.split, example.image_id, example.question.lower()].add(example.answer)
    differing = Counter(split for (split, *_), found in answers.items() if len(found) > 1)
    assert differing == {"train": 1085, "validation": 377, "test": 387}


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
    assert counts(strings, "split") == {("train",): 4919 - 2, ("validation",): 1053, ("test",): 1061}
    # Whoever edited it lost two rows and the answer "None".
    assert not any(example.answer == "None" for example in strings)


def test_a_copy_nested_by_image_is_refused(realdata, tmp_path):
    nested = realdata / "slake/variants/Jana-SG_nested_by_image/test.json"
    for name in ("train.json", "validate.json", "test.json"):
        (tmp_path / name).symlink_to(nested)
    with pytest.raises(UserError, match=r"train\.json: row 1: questions nested by image"):
        list(READERS["slake"](tmp_path))
