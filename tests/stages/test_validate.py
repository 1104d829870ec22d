"""The validate stage: good records pass with true numbers; each kind of error stops the chain."""

import json
import os
import random

import pytest
from PIL import ExifTags, Image

from workflow_scripts import validate as command
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import records
from workflow_scripts.datasets.records import SPLITS, Example
from workflow_scripts.evaluation.statistics.pictures import leaked_images
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.pages import samples
from workflow_scripts.stages import validate

RUN = Run("slake", "4.1v", "thinking")
FORMAT = VERSIONS["4.1v"].answer_format("thinking")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from workflow_scripts.models import standins

    folder = tmp_path_factory.mktemp("models")
    standins.processor(VERSIONS["4.1v"]).save_pretrained(folder / "4.1v_thinking")
    return folder


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setattr(samples, "SAMPLES", 3)
    chosen = Config()
    chosen.tracking = []
    return chosen


@pytest.fixture
def layout(tmp_path, models):
    """A results folder with two images a split and two questions an image."""
    layout = Layout(tmp_path / "results")
    layout.root.mkdir()
    (layout.root / "models").symlink_to(models)
    layout.raw("slake").mkdir(parents=True)
    for number, split in enumerate(SPLITS):
        rows = []
        for image in (f"{split}-1", f"{split}-2"):
            picture = noise(f"{image}", (120 + 10 * number, 100 + len(rows)))
            picture.save(layout.raw("slake") / f"{image}.png")
            rows += [record(split, image, "Is it a CT?", "Yes"), record(split, image, "哪个器官?", "肺")]
        files.write_jsonl(layout.split(RUN, split), rows)
    files.write_jsonl(layout.data(RUN) / "dropped.jsonl", [{"id": "x", "reason": "missing image"}])
    describe(layout)
    return layout


def noise(seed, size):
    """A picture that looks like no other."""
    return Image.frombytes("L", (16, 16), random.Random(seed).randbytes(256)).resize(size)


def record(split, image, question, answer):
    kind, language = ("closed", "en") if answer in ("Yes", "No") else ("open", "zh")
    example = Example(
        f"{image}-{question}", "slake", split, "", image, question, answer, kind, language=language
    )
    turns = [(records.user_text(question), FORMAT.write(answer, "Look."))]
    return records.to_record(example, [f"../../raw/slake/{image}.png"], turns)


def describe(layout):
    """Let summary.json tell of the files as they are."""
    rows = {split: len(read(layout, split)) for split in SPLITS}
    kept = sum(rows.values())
    digests = [files.sha256(layout.split(RUN, split)) for split in SPLITS]
    summary = {"read": kept + 1, "kept": kept, "copies": 0, "dropped": {"missing image": 1}, "rows": rows}
    files.write_json(
        layout.data(RUN) / "summary.json", {**summary, "fingerprint": files.fingerprint(digests)}
    )


def read(layout, split):
    return list(files.read_jsonl(layout.split(RUN, split)))


def change(layout, values):
    """Write other values into the third train record."""
    rows = read(layout, "train")
    rows[2] |= values
    files.write_jsonl(layout.split(RUN, "train"), rows)
    describe(layout)


def dialogue(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def test_good_records_pass_with_true_numbers(layout, settings):
    stale = layout.data(RUN) / "validation-failed.html"
    stale.write_text("of an earlier attempt")
    summary = validate.validate(settings, layout, RUN)
    written = files.read_json(layout.data(RUN) / "validation.json")
    assert written == {key: value for key, value in summary.items() if key not in validate.PAGE_ONLY}
    assert summary["passed"] and not summary["errors"] and not summary["warnings"]
    assert (summary["read"], summary["kept"], summary["dropped"]) == (13, 12, {"missing image": 1})
    counts = {
        "rows": 4,
        "images": 2,
        "closed": 2,
        "open": 2,
        "closed_answers": {"yes": 2, "no": 0, "other": 0},
        "languages": {"en": 2, "zh": 2},
        "sources": {"slake": 4},
        "question_types": {"not stated": 4},
    }
    assert summary["counts"] == dict.fromkeys(SPLITS, counts)
    answers = summary["answers"]
    assert (answers["distinct"], answers["top"]) == (2, [["Yes", 6], ["肺", 6]])
    assert answers["test_coverage"] == 1 and len(answers["coverage"]) == 4
    assert sum(count for _, _, count in summary["token_lengths"]["histogram"]) == 12
    assert [sample["split"] for sample in summary["samples"]] == list(SPLITS)
    assert summary["near_duplicates"] == {"most_bits": 12, "pairs": 0}
    assert leaked_images(summary) == set()
    assert not stale.exists()
    assert "Passed" in (layout.data(RUN) / "validation.html").read_text("utf-8")


def test_lengths_are_those_of_the_processor(layout, settings):
    """Counted without pixels, a dialogue is as long as the processor makes it of image and text."""
    processor = validate._dialogue(settings, layout, RUN).processor
    for row in read(layout, "test"):
        (turn,) = Dialogue(processor, "4.1v", "thinking").turns(row)
        image = Image.open(layout.data(RUN) / row["images"][0])
        made = processor(images=[image], text=[turn.prompt + turn.completion], return_tensors="pt")
        for split in SPLITS:
            files.write_jsonl(layout.split(RUN, split), [{**row, "split": split, "id": split}])
        describe(layout)
        assert validate.validate(settings, layout, RUN)["token_lengths"]["max"] == made["input_ids"].shape[1]


GOOD = [("user", "<image>Is it?"), ("assistant", FORMAT.write("Yes"))]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("not a record", {"answer": 3}),
        ("not a record", {"images": []}),
        ("not a record", {"answer_type": "OPEN"}),
        (
            "not a record",
            {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]},
        ),
        ("in the file of another split", {"split": "test"}),
        ("duplicate id", {"id": "test-1-Is it a CT?"}),
        ("roles do not alternate", {"messages": dialogue(*reversed(GOOD))}),
        ("roles do not alternate", {"messages": dialogue(*GOOD, ("user", "Why?"))}),
        ("does not stand once per image", {"messages": dialogue(("user", "Is it?"), GOOD[1])}),
        ("does not stand once per image", {"messages": dialogue(GOOD[0], ("assistant", "<image>"))}),
        ("the answer cannot be read back", {"messages": dialogue(GOOD[0], ("assistant", "Yes"))}),
        ("the answer cannot be read back", {"answer": "No"}),
        ("missing image", {"images": ["../../raw/slake/none.png"]}),
        ("longer than data.max_tokens", {"messages": dialogue(("user", "<image>" + "why " * 5000), GOOD[1])}),
    ],
)
def test_an_error_stops_the_chain_and_is_named(layout, settings, kind, values):
    change(layout, values)
    with pytest.raises(UserError) as refusal:
        validate.validate(settings, layout, RUN)
    header, named, place = str(refusal.value).split("\n")
    assert "1 error(s)" in header and "validation-failed.html" in header
    assert kind in named and named.endswith(": 1")
    assert place.startswith("    t") and "train.jsonl:3" in place
    left = {path.name for path in layout.data(RUN).glob("validation*")}
    assert left == {"validation.jsonl", "validation-failed.html"}
    assert kind in (layout.data(RUN) / "validation-failed.html").read_text("utf-8").replace("&lt;", "<")


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("unreadable image", lambda path: path.write_bytes(b"")),
        ("unreadable image", lambda path: os.truncate(path, path.stat().st_size - 30)),
        ("of a shape that the model does not take", lambda path: Image.new("L", (2, 900)).save(path)),
    ],
)
def test_a_bad_image_is_named_once(layout, settings, kind, spoil):
    spoil(layout.raw("slake") / "train-1.png")
    with pytest.raises(UserError, match=kind) as refusal:
        validate.validate(settings, layout, RUN)
    assert "train-1.png" in str(refusal.value)


@pytest.mark.parametrize("decode", [True, False])
def test_damage_behind_the_head_of_an_image_is_named_once(layout, settings, decode):
    """Every image is decoded; without that, damage shows in the sampled ones only."""
    settings.data.decode_images = decode
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1  # with EXIF in its head, the size of a PNG needs no pixels
    for image in ("train-1.png", "train-2.png"):
        path = layout.raw("slake") / image
        Image.effect_noise((200, 200), 50).save(path, exif=exif)
        os.truncate(path, path.stat().st_size // 2)
    found = 2 if decode else 1
    with pytest.raises(UserError, match=f"unreadable image: {found}\n    train.jsonl:"):
        validate.validate(settings, layout, RUN)


def test_a_line_that_is_no_json_is_named(layout, settings):
    with open(layout.split(RUN, "test"), "a") as file:
        file.write("{broken\n")
    with pytest.raises(UserError) as refusal:
        validate.validate(settings, layout, RUN)
    text = str(refusal.value)
    assert "test.jsonl:5: " in text
    assert "rows: it says {'train': 4, 'validation': 4, 'test': 4}, found" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [("read", 12), ("kept", 11), ("copies", 1), ("dropped", {}), ("rows", {}), ("fingerprint", "0")],
)
def test_the_summary_must_tell_of_these_files(layout, settings, key, value):
    path = layout.data(RUN) / "summary.json"
    files.write_json(path, files.read_json(path) | {key: value})
    with pytest.raises(UserError, match=f"summary.json tells of other files: 1\n    {key}: it says"):
        validate.validate(settings, layout, RUN)


def test_only_twenty_examples_of_a_kind_are_listed(layout, settings):
    rows = read(layout, "train")
    files.write_jsonl(layout.split(RUN, "train"), [*rows, *(rows[0] for _ in range(30))])
    describe(layout)
    with pytest.raises(UserError, match="duplicate id: 30") as refusal:
        validate.validate(settings, layout, RUN)
    assert str(refusal.value).count("as in train.jsonl:1") == 20


@pytest.fixture
def leaking(layout):
    """The same row twice, and a train image under another name in test."""
    rows = read(layout, "train")
    files.write_jsonl(layout.split(RUN, "train"), [*rows, {**rows[0], "id": "again"}])
    images = layout.raw("slake")
    (images / "test-1.png").write_bytes((images / "train-2.png").read_bytes())
    describe(layout)
    return layout


def test_warnings_do_not_stop_the_chain(leaking, settings):
    summary = validate.validate(settings, leaking, RUN)
    assert [(problem["kind"], problem["count"]) for problem in summary["warnings"]] == [
        ("same image, question and answer", 1),
        ("image in train and test (2 of 4 test rows)", 1),
    ]
    assert summary["warnings"][0]["examples"] == ["train.jsonl:5: as in train.jsonl:1"]
    assert summary["warnings"][1]["examples"] == ["../../raw/slake/test-1.png"]
    train_in_test = summary["leaks"][0]
    assert [column["language"] for column in train_in_test["columns"]] == ["en", "zh", "all"]
    assert train_in_test["rows"][2]["cells"][2] == {"images": 1, "rows": 2, "exact": 2}
    assert summary["leaked_images"] == {"exact": ["slake/test-1"], "near_duplicates": []}


def test_a_test_image_that_looks_like_a_leaked_one_is_leaked_too(leaking, settings):
    images = leaking.raw("slake")
    Image.open(images / "train-2.png").resize((90, 90)).save(images / "test-2.png")
    summary = validate.validate(settings, leaking, RUN)
    assert summary["near_duplicates"]["pairs"] == 0  # the image of train is one of test as well
    assert summary["leaked_images"] == {"exact": ["slake/test-1"], "near_duplicates": ["slake/test-2"]}
    written = files.read_json(leaking.data(RUN) / "validation.json")
    assert leaked_images(written) == {"slake/test-1", "slake/test-2"}


def test_an_image_disjoint_run_may_not_leak(leaking, settings):
    settings.data.splits = "image_disjoint"
    with pytest.raises(UserError, match=r"image in train and test \(2 of 4 test rows\): 1\n    .*test-1.png"):
        validate.validate(settings, leaking, RUN)


def test_a_model_is_chosen_by_unseen_images_or_a_warning_says_so(layout, settings):
    images = layout.raw("slake")
    (images / "validation-1.png").write_bytes((images / "train-2.png").read_bytes())
    people = {"train-1": "P1", "train-2": "P2", "validation-2": "P1", "test-1": "P3"}
    rows = [
        {"id": row["id"], "patient": people[row["image_id"]]}
        for split in SPLITS
        for row in read(layout, split)
        if row["image_id"] in people
    ]
    files.write_jsonl(layout.data(RUN) / "annotations.jsonl", rows)
    warnings = validate.validate(settings, layout, RUN)["warnings"]
    assert [(problem["kind"].split("; ")[0], problem["examples"]) for problem in warnings] == [
        ("image in train and validation (2 of 4 validation rows)", ["../../raw/slake/validation-1.png"]),
        ("patient in train and validation", ["slake: P1"]),
    ]
    assert all("favour what is memorised" in problem["kind"] for problem in warnings)
    settings.data.splits = "image_disjoint"
    with pytest.raises(UserError, match="2 error") as refusal:
        validate.validate(settings, layout, RUN)
    assert "image in train and validation" in str(refusal.value)
    assert "patient in train and validation" in str(refusal.value)


def test_near_duplicates_are_listed_and_shown(layout, settings):
    images = layout.raw("slake")
    Image.open(images / "train-2.png").resize((90, 90)).save(images / "test-1.png")
    summary = validate.validate(settings, layout, RUN)
    assert summary["near_duplicates"]["pairs"] == 1 == len(summary["near_duplicate_pictures"])
    (listed,) = files.read_jsonl(layout.data(RUN) / "near_duplicates.jsonl")
    assert (listed["image"], listed["test_image"]) == (
        "../../raw/slake/train-2.png",
        "../../raw/slake/test-1.png",
    )
    (warning,) = summary["warnings"]
    assert "looks like a test image" in warning["kind"] and warning["count"] == 1
    page = (layout.data(RUN) / "validation.html").read_text("utf-8")
    assert "1 pair of a train or validation image" in page and "of 256 bits differ" in page

    assert leaked_images(summary) == {"slake/test-1"}

    settings.data.decode_images = False
    undecoded = validate.validate(settings, layout, RUN)
    assert undecoded["near_duplicates"] is None
    assert undecoded["leaked_images"] == {"exact": [], "near_duplicates": None}
    assert not (layout.data(RUN) / "near_duplicates.jsonl").exists()


def test_rows_that_mixing_repeats_are_no_duplicates(layout, settings):
    rows = read(layout, "train")
    files.write_jsonl(layout.split(RUN, "train"), [*rows, {**rows[0], "id": rows[0]["id"] + "#copy2"}])
    describe(layout)
    path = layout.data(RUN) / "summary.json"
    stated = files.read_json(path)
    with pytest.raises(UserError, match="copies: it says 0, found 1"):
        validate.validate(settings, layout, RUN)
    files.write_json(path, stated | {"copies": 1, "read": stated["read"] - 1})
    assert not validate.validate(settings, layout, RUN)["warnings"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": "YES."}, "rejected says the same as chosen: .*YES.*, .*Yes"),
        ({"images": ["raw/slake/test-1.png"]}, "images: raw/slake/test-1.png belongs to the test set"),
        ({"images": ["none.png"]}, "images: .*none.png: no such image"),
    ],
)
def test_the_users_own_pairs_are_checked_before_training(layout, settings, change, said):
    pair = {
        "messages": [{"role": "user", "content": "<image>Is it?"}],
        "images": ["raw/slake/train-1.png"],
        "chosen": "Yes",
        "rejected": "No",
    }
    path = layout.root / "mine.jsonl"
    other = {**pair, "messages": [{"role": "user", "content": "<image>Is it, really?"}]}
    files.write_jsonl(path, [pair, other])
    settings.preferences.files = {"slake": [path]}
    assert validate.validate(settings, layout, RUN)["passed"]
    files.write_jsonl(path, [pair, other | change])
    with pytest.raises(
        UserError, match=f"preference pair that cannot be used: 1\n    .*mine.jsonl:2: {said}"
    ):
        validate.validate(settings, layout, RUN)


def test_a_dialogue_of_several_turns_and_images_passes(layout, settings):
    turns = [
        ("user", "<image><image>Is it?"),
        ("assistant", FORMAT.write("No")),
        ("user", "Sure?"),
        ("assistant", FORMAT.write("Yes")),
    ]
    images = ["../../raw/slake/train-1.png", "../../raw/slake/train-2.png"]
    change(layout, {"messages": dialogue(*turns), "images": images})
    assert validate.validate(settings, layout, RUN)["passed"]


def test_what_is_missing_is_said(layout, settings):
    layout.split(RUN, "test").unlink()
    with pytest.raises(UserError, match="test.jsonl: no such file; convert the set first"):
        validate.validate(settings, layout, RUN)
    (layout.root / "models").unlink()
    with pytest.raises(UserError, match="4.1v_thinking: no model here"):
        validate.validate(settings, layout, RUN)


def test_the_command_writes_what_the_rule_expects(layout, tmp_path):
    chosen = tmp_path / "config.yaml"
    chosen.write_text(json.dumps({"tracking": []}))
    flags = ["--dataset", "slake", "--model_version", "4.1v", "--mode", "thinking"]
    assert command.main(["--config", str(chosen), "--results", str(layout.root), *flags]) == 0
    assert (layout.data(RUN) / "validation.json").is_file()
    assert (layout.data(RUN) / "validation.html").is_file()
