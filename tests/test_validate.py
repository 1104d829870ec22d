"""The validate stage: good records pass with true numbers; each kind of error stops the chain."""

import json
import os

import pytest
from PIL import ExifTags, Image

from workflow_scripts import config, files, validate
from workflow_scripts.datasets import records
from workflow_scripts.datasets.records import SPLITS, Example
from workflow_scripts.errors import UserError
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.paths import Layout, Run

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
    monkeypatch.setattr(validate, "SAMPLES", 3)
    chosen = config.Config()
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
            picture = Image.new("RGB", (120 + 10 * number, 100 + len(rows)), "gray")
            picture.save(layout.raw("slake") / f"{image}.png")
            rows += [record(split, image, "Is it a CT?", "Yes"), record(split, image, "哪个器官?", "肺")]
        files.write_jsonl(layout.split(RUN, split), rows)
    files.write_jsonl(layout.data(RUN) / "dropped.jsonl", [{"id": "x", "reason": "missing image"}])
    describe(layout)
    return layout


def record(split, image, question, answer):
    example = Example(f"{image}-{question}", "slake", split, "", image, question, answer, "open")
    turns = [(records.user_text(question), FORMAT.write(answer, "Look."))]
    return records.to_record(example, [f"../../raw/slake/{image}.png"], turns)


def describe(layout):
    """Let summary.json tell of the files as they are."""
    rows = {split: len(read(layout, split)) for split in SPLITS}
    kept = sum(rows.values())
    digests = [files.sha256(layout.split(RUN, split)) for split in SPLITS]
    summary = {"read": kept + 1, "kept": kept, "dropped": {"missing image": 1}, "rows": rows}
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
    assert written == {key: value for key, value in summary.items() if key != "samples"}
    assert summary["passed"] and not summary["errors"] and not summary["warnings"]
    assert (summary["read"], summary["kept"], summary["dropped"]) == (13, 12, {"missing image": 1})
    counts = {"rows": 4, "images": 2, "closed": 0, "open": 4, "languages": {"en": 4}, "sources": {"slake": 4}}
    assert summary["counts"] == dict.fromkeys(SPLITS, counts)
    assert summary["answers"] == {"distinct": 2, "top": [["Yes", 6], ["肺", 6]], "test_coverage": 1.0}
    assert sum(count for _, _, count in summary["token_lengths"]["histogram"]) == 12
    assert [sample["split"] for sample in summary["samples"]] == list(SPLITS)
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


def test_samples_have_the_size_that_the_model_sees(layout, settings):
    image_processor = validate._dialogue(settings, layout, RUN).processor.image_processor
    wide = validate._as_seen(Image.new("RGB", (400, 100)), image_processor)
    assert (wide.width, wide.height) == (224, 56)


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


def test_damage_behind_the_head_of_a_sampled_image_is_named(layout, settings):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1  # with EXIF in its head, the size of a PNG needs no pixels
    for image in ("train-1.png", "train-2.png"):
        path = layout.raw("slake") / image
        Image.effect_noise((200, 200), 50).save(path, exif=exif)
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="unreadable image: 1\n    train.jsonl:"):
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
    ("key", "value"), [("read", 12), ("kept", 11), ("dropped", {}), ("rows", {}), ("fingerprint", "0")]
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


def test_warnings_do_not_stop_the_chain(layout, settings):
    """The same row twice, and train images under another name in test."""
    rows = read(layout, "train")
    files.write_jsonl(layout.split(RUN, "train"), [*rows, {**rows[0], "id": "again"}])
    images = layout.raw("slake")
    (images / "test-1.png").write_bytes((images / "train-2.png").read_bytes())
    describe(layout)
    warnings = validate.validate(settings, layout, RUN)["warnings"]
    assert [(problem["kind"], problem["count"]) for problem in warnings] == [
        ("same image, question and answer", 1),
        ("image in train and test (2 of 4 test rows)", 1),
    ]
    assert warnings[1]["examples"] == ["../../raw/slake/test-1.png"]


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
    assert validate.main(["--config", str(chosen), "--results", str(layout.root), *flags]) == 0
    assert (layout.data(RUN) / "validation.json").is_file()
    assert (layout.data(RUN) / "validation.html").is_file()
