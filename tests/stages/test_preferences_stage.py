"""Which questions pairs are made of: never one that shows a test image, under whatever name."""

import shutil

import pytest
from PIL import Image

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import validate
from workflow_scripts.datasets.pairs.rules import Answers
from workflow_scripts.stages import convert, download
from workflow_scripts.stages.preferences import HeldOut, agree, is_wrong, own_answers, preferences

RUN = Run("mine", "4.1v", "base")


def record(split: str, answer: str, *images: str) -> dict:
    return {
        "messages": [
            {"role": "user", "content": "<image>" * len(images) + "Which side?"},
            {"role": "assistant", "content": f"<answer>{answer}</answer>"},
        ],
        "images": [f"../../raw/{image}.png" for image in images],
        "id": f"{split}-{'-'.join(images)}-{answer}",
        "source": "mine",
        "split": split,
        "image_id": images[0],
        "question": "Which side?",
        "answer": answer,
        "answer_type": "open",
        "question_type": "",
        "language": "en",
        "modality": "",
        "organ": "",
    }


@pytest.fixture
def layout(tmp_path):
    """Images a, b, c and `copy`, whose bytes are those of c; c is the test image."""
    layout = Layout(tmp_path / "results")
    (layout.root / "raw").mkdir(parents=True)
    for shade, name in enumerate("abc"):
        Image.new("L", (8, 8), shade).save(layout.root / "raw" / f"{name}.png")
    shutil.copy(layout.root / "raw" / "c.png", layout.root / "raw" / "copy.png")
    files.write_jsonl(layout.split(RUN, "test"), [record("test", "Left", "c")])
    return layout


def pairs(layout, train: list[dict], validation: list[dict] = (), **settings) -> list[dict]:
    """What `preferences` writes for these train records, by rules unless `settings` say otherwise."""
    files.write_jsonl(layout.split(RUN, "train"), train)
    files.write_jsonl(layout.split(RUN, "validation"), validation)
    own = {"own_answers": False, **settings}
    configuration = validate(
        {"datasets": {"mine": {"reader": "rad", "path": "x"}}, "preferences": own}, "test"
    )
    preferences(configuration, layout, RUN, layout.trained("sft", RUN))
    return list(files.read_jsonl(layout.preferences(RUN)))


@pytest.mark.parametrize("shown", [("c",), ("copy",), ("a", "c"), ("copy", "a")], ids="+".join)
def test_no_pair_shows_a_test_image(layout, shown):
    rows = pairs(
        layout, [record("train", "Left", "a"), record("train", "Right", "b"), record("train", "Left", *shown)]
    )
    assert {row["image_id"] for row in rows} == {"a", "b"}
    held_out = HeldOut(layout, RUN, "test")
    for row in rows:
        assert held_out.among(row["images"], layout.preferences(RUN).parent) == []
        assert (row["chosen"], row["rejected"]) in (
            ("<answer>Left</answer>", "<answer>Right</answer>"),
            ("<answer>Right</answer>", "<answer>Left</answer>"),
        )


def test_pairs_for_validation_show_images_that_are_in_no_other_split(layout):
    """As in SLAKE, where most validation images are in train too."""
    for shade, name in enumerate("de", start=3):
        Image.new("L", (8, 8), shade).save(layout.root / "raw" / f"{name}.png")
    shown = ("a", "copy", "d", "e")
    validation = [
        record("validation", answer, image)
        for image, answer in zip(shown, ("Left", "Left", "Left", "Right"), strict=True)
    ]
    train = [record("train", "Left", "a"), record("train", "Right", "b")]
    before = pairs(layout, train)
    assert list(files.read_jsonl(layout.validation_pairs(RUN))) == []
    assert pairs(layout, train, validation) == before
    found = list(files.read_jsonl(layout.validation_pairs(RUN)))
    assert {row["image_id"] for row in found} == {"d", "e"}
    for row in found:
        assert row["origin"] != "own_answer" and row["chosen"] != row["rejected"]
        assert (layout.validation_pairs(RUN).parent / row["images"][0]).is_file()


def test_a_set_whose_train_images_are_all_tested_has_no_pairs(layout):
    with pytest.raises(UserError, match="every train image is in the test set too"):
        pairs(layout, [record("train", "Left", "copy")])


@pytest.fixture
def own_file(layout, tmp_path):
    """Write a pair of the user about images of `raw`, and give its path."""

    def write(*images: str, **sides: str):
        line = {
            "messages": [{"role": "user", "content": "<image>" * len(images) + "Is it?"}],
            "images": [f"results/raw/{image}.png" for image in images],
            **({"chosen": "Cardiomegaly", "rejected": "Pneumonia"} | sides),
        }
        files.write_jsonl(tmp_path / "own.jsonl", [line])
        return {"files": {"mine": [str(tmp_path / "own.jsonl")]}}

    return write


@pytest.mark.parametrize("shown", [("c",), ("copy",), ("a", "c")], ids="+".join)
def test_a_pair_of_the_user_that_shows_a_test_image_is_refused(layout, own_file, shown):
    with pytest.raises(
        UserError, match=rf"own.jsonl:1: images: results/raw/{shown[-1]}.png belongs to the test set"
    ):
        pairs(layout, [record("train", "Left", "a")], **own_file(*shown))


def test_a_limited_run_has_as_few_pairs_of_each_file_of_the_user(layout, own_file, tmp_path):
    given = own_file("b")
    (line,) = files.read_jsonl(tmp_path / "own.jsonl")
    asked = [[{"role": "user", "content": f"<image>Is it {number}?"}] for number in range(20)]
    files.write_jsonl(tmp_path / "own.jsonl", [{**line, "messages": messages} for messages in asked])
    files.write_jsonl(layout.split(RUN, "train"), [record("train", "Normal", "a")])
    files.write_jsonl(layout.split(RUN, "validation"), [])
    own = {"own_answers": False, **given}
    sets = {"mine": {"reader": "rad", "path": "x"}}
    for limit, count in ((5, 5), (None, 20)):
        settings = validate({"datasets": sets, "preferences": own, "limit": limit}, "test")
        assert preferences(settings, layout, RUN, layout.trained("sft", RUN))["user"] == count


def test_a_pair_of_the_user_is_written_in_the_format_of_the_run(layout, own_file):
    (row,) = pairs(
        layout, [record("train", "Normal", "a")], **own_file("b", rejected="<answer>Pneumonia</answer>")
    )
    assert (row["chosen"], row["rejected"]) == ("<answer>Cardiomegaly</answer>", "<answer>Pneumonia</answer>")
    assert (layout.preferences(RUN).parent / row["images"][0]).is_file()


def test_a_side_that_cannot_be_written_names_the_line(layout, own_file):
    with pytest.raises(
        UserError, match=r"own.jsonl:1: chosen: markup '<think>Lung' is not of the form <answer>"
    ):
        pairs(layout, [record("train", "Lung", "a")], **own_file("b", chosen="<think>Lung"))


def test_another_right_answer_to_the_same_question_is_not_wrong():
    records = [record("train", answer, "a") for answer in ("nucleus", "cell membrane")] + [
        record("train", "wall", "b")
    ]
    answers = Answers(records)
    judged = {
        answer: is_wrong(answer, records[0], answers) for answer in ("Cell membrane.", "membrane", "wall")
    }
    assert judged == {"Cell membrane.": False, "membrane": False, "wall": True}


@pytest.mark.parametrize(
    ("answer", "right", "agreed"),
    [
        ("small intestine", "Small Bowel", True),  # synonyms
        ("x-ray", "Chest X-ray", True),
        ("Chest X-ray", "x-ray", True),
        ("有", "没有", False),
        ("abnormal", "normal", False),
        ("no fracture", "fracture", False),
        ("Yes, there is", "yes", True),
        ("left lung", "right lung", False),
    ],
)
def test_answers_agree_when_one_is_part_of_the_other_but_not_when_it_denies_it(answer, right, agreed):
    assert agree(answer, right) is agreed


def test_own_answers_depend_on_the_seed_alone(tmp_path):
    """4.5v base writes its answer without tags, so that whatever the stand-in says is an answer."""
    run = Run("rad", "4.5v", "base")
    raw = {
        "datasets": {"rad": {"reader": "rad", "embedded": 10}},
        "models": {"4.5v": {"base": {"embedded": True}}},
        "evaluation": {"max_new_tokens": 24, "gpus": 0},
    }
    settings, layout = validate(raw, "test"), Layout(tmp_path)
    download.download_source(settings, layout, "rad")
    download.download_model(settings, layout, run.model_version, run.mode)
    convert.convert(settings, layout, run)
    records = list(files.read_jsonl(layout.split(run, "train")))[:8]
    arguments = (layout.model("4.5v", "base"), records, Answers(records), layout.data(run))
    first, again = (list(own_answers(settings, run, *arguments)) for _ in range(2))
    assert first and first == again
    turned = list(own_answers(settings, run, arguments[0], records[::-1], *arguments[2:]))
    assert sorted(map(str, turned)) == sorted(map(str, first))  # whatever is asked beside
    settings.seed += 1
    assert first != list(own_answers(settings, run, *arguments))


def test_a_page_shows_some_pairs_of_each_rule(layout):
    train = [record("train", side, image) for image in "ab" for side in ("Left", "Upper <b>")]
    made = pairs(layout, train)
    page = layout.pairs_page(RUN).read_text(encoding="utf-8")
    assert {row["origin"] for row in made} == {
        origin for origin in ("swap", "other_image", "polarity") if f"<h2>{origin}</h2>" in page
    }
    assert page.count("<article") == len(made) and "Upper &lt;b&gt;" in page
    assert page.count("data:image/jpeg;base64,") == len(made)
