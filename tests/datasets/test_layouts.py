import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import read_json, sha256
from workflow_scripts.datasets.phantoms.layouts import write_pathvqa, write_rad, write_slake
from workflow_scripts.datasets.records import Example

WRITERS = {"slake": write_slake, "rad": write_rad, "pathvqa": write_pathvqa}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def floor(examples: list[Example]) -> float:
    """The share of test answers that are the most frequent training answer to the same question."""
    answers = defaultdict(Counter)
    for example in examples:
        if example.split != "test":
            answers[example.question][example.answer] += 1
    test = [example for example in examples if example.split == "test"]
    guesses = {question: counts.most_common(1)[0][0] for question, counts in answers.items()}
    return sum(guesses.get(example.question) == example.answer for example in test) / len(test)


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_seed_writes_the_same_bytes(name, tmp_path):
    for folder in ("once", "again"):
        WRITERS[name](tmp_path / folder, 5, seed=3)
    WRITERS[name](tmp_path / "other", 5, seed=4)
    assert digests(tmp_path / "once") == digests(tmp_path / "again") != digests(tmp_path / "other")


@pytest.mark.parametrize("name", WRITERS)
def test_large_seeds_make_sets_of_their_own(name, tmp_path):
    seeds = (0, 3332, 3333, 2**32 - 1)
    for seed in seeds:
        WRITERS[name](tmp_path / str(seed), 3, seed)
    assert len({tuple(digests(tmp_path / str(seed)).items()) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("name", WRITERS)
def test_too_few_images_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="ask for 3 to"):
        WRITERS[name](tmp_path, 2, seed=0)


def test_three_images_give_every_split_one(tmp_path):
    write_slake(tmp_path, 3, seed=0)
    names = [{row["img_name"] for row in read_json(tmp_path / f"{split}.json")} for split in
             ("train", "validate", "test")]  # fmt: skip
    assert [len(images) for images in names] == [1, 1, 1]


def test_no_image_is_in_two_splits_or_two_sets(phantom_sets, phantom_examples):
    places = defaultdict(set)
    for name, examples in phantom_examples.items():
        for example in examples:
            places[phantom_sets / name / example.image].add((name, example.split))
    assert all(len(where) == 1 for where in places.values())
    assert len({sha256(path) for path in places}) == len(places) == 3 * 120


def test_splits_are_about_seven_one_two(phantom_examples):
    def images(name):
        splits = defaultdict(set)
        for example in phantom_examples[name]:
            splits[example.split].add(example.image_id)
        return {split: len(found) for split, found in splits.items()}

    assert images("slake") == images("pathvqa") == {"train": 84, "validation": 12, "test": 24}
    assert images("rad") == {"train": 96, "test": 24}


def test_a_question_alone_does_not_tell_the_answer(phantom_examples):
    floors = {name: floor(examples) for name, examples in phantom_examples.items()}
    floors["combined"] = floor([example for examples in phantom_examples.values() for example in examples])
    print({name: round(value, 3) for name, value in floors.items()})
    assert all(value < 0.45 for value in floors.values())


def test_four_in_ten_questions_are_closed(phantom_examples):
    for examples in phantom_examples.values():
        assert 0.35 < sum(example.answer_type == "closed" for example in examples) / len(examples) < 0.5


def test_slake_rows_have_the_keys_of_the_original(phantom_sets, realdata):
    home = phantom_sets / "slake"
    for ours, theirs in (("train.json",) * 2, ("validate.json",) * 2, ("test.json",) * 2):
        original = read_json(realdata / "slake" / "Slake1.0" / theirs)
        assert {frozenset(row) for row in read_json(home / ours)} == {frozenset(row) for row in original}
    assert {path.name for path in (home / "KG").iterdir()} == {
        path.name for path in (realdata / "slake" / "Slake1.0" / "KG").iterdir()
    }
    for path in (home / "KG").iterdir():
        original = (realdata / "slake" / "Slake1.0" / "KG" / path.name).read_text("utf-8-sig")
        assert path.read_text("utf-8").splitlines()[0] == original.splitlines()[0]


def test_slake_images_come_with_mask_boxes_and_questions(phantom_sets):
    folder = phantom_sets / "slake" / "imgs" / "xmlab1"
    with Image.open(folder / "source.jpg") as image, Image.open(folder / "mask.png") as mask:
        assert (image.format, mask.format) == ("JPEG", "PNG") and image.size == mask.size
    assert all(len(box) == 4 for found in read_json(folder / "detection.json") for box in found.values())
    assert {row["q_lang"] for row in read_json(folder / "question.json")} == {"en", "zh"}


def test_rad_rows_have_the_fields_of_the_original(phantom_sets, realdata):
    name = "VQA_RAD Dataset Public.json"
    ours, original = read_json(phantom_sets / "rad" / name), read_json(realdata / "vqa_rad" / name)
    assert {tuple(row) for row in ours} == {tuple(original[0])}
    assert {row["phrase_type"] for row in ours} == {row["phrase_type"] for row in original}


def test_rad_paraphrases_are_linked_to_their_question(phantom_sets):
    linked = defaultdict(list)
    for row in read_json(phantom_sets / "rad" / "VQA_RAD Dataset Public.json"):
        linked[row["qid_linked_id"]].append(row)
    pairs = [rows for rows in linked.values() if len(rows) > 1]
    assert pairs and len(pairs) < len(linked)
    for freeform, para in pairs:
        assert freeform["question_rephrase"] == para["question"] != freeform["question"]
        assert (freeform["answer"], freeform["image_name"]) == (para["answer"], para["image_name"])


def test_json_is_readable_chinese(phantom_sets):
    assert "这是哪种成像方式" in (phantom_sets / "slake" / "train.json").read_text("utf-8")
    assert json.loads((phantom_sets / "slake" / "test.json").read_text("utf-8"))
