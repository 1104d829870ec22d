"""Scores of answer files: all protocols at once, with intervals, beside print only where it is of the same kind."""

import json

import pytest

from workflow_scripts import score as command
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, JudgeSettings
from workflow_scripts.evaluation import published
from workflow_scripts.evaluation.protocols import PROTOCOLS
from workflow_scripts.evaluation.score_table import printed
from workflow_scripts.stages.score import score

RUN = Run("slake", "4.1v", "thinking")
GOLDS = [("1", "Which organ?", "Lung", "open"), ("1", "Is it a CT?", "Yes", "closed")]
GOLDS += [("2", "Which organ?", "Heart", "open"), ("3", "Which organ?", "Liver", "open")]


def record(number, image, question, answer, answer_type):
    return {
        "id": f"slake-en-{number}",
        "source": "slake",
        "image_id": f"xmlab{image}",
        "question": question,
        "language": "en",
        "answer_type": answer_type,
        "answer": answer,
        "messages": [],
        "images": [],
        "split": "test",
    }


@pytest.fixture
def layout(tmp_path):
    """The converted test questions of one run."""
    layout = Layout(tmp_path / "results")
    files.write_jsonl(layout.split(RUN, "test"), [record(n, *gold) for n, gold in enumerate(GOLDS, start=1)])
    return layout


def write(path, *texts, **more):
    """Answers to the questions in their order, as LLaVA-Med writes them."""
    rows = ({"question_id": number, "text": text, **more} for number, text in enumerate(texts, start=1))
    files.write_jsonl(path, rows)
    return path


def test_a_file_is_scored_by_every_protocol_with_intervals(layout, tmp_path):
    found = score(Config(), layout, write(tmp_path / "a.jsonl", "lung", "Yes.", "right heart", "CT"), "slake")
    assert (found["layout"], found["questions"]) == ("LLaVA-Med", str(layout.split(RUN, "test")))
    (group,) = found["groups"].values()
    assert (group["matched"], group["unmatched"], group["unanswered"]) == ({"id": 4}, [], [])
    assert group["protocols"].keys() == PROTOCOLS.keys()
    strict, closed = group["protocols"]["strict"], group["protocols"]["closed_only"]
    assert strict["numbers"]["accuracy"]["value"] == 0.5 and strict["numbers"]["accuracy"]["n"] == 4
    low, high = strict["numbers"]["accuracy"]["interval"]
    assert low < 0.5 < high and "0.0 – 100.0" in printed(found)
    assert strict["test_sets"]["slake"] == strict["languages"]["en"] == strict["numbers"]
    assert group["protocols"]["llava_med"]["numbers"]["open_recall"]["value"] == pytest.approx(2 / 3)
    assert (closed["numbers"]["accuracy"]["n"], closed["without_score"]) == (1, {"excluded": 3})
    assert all(not own["published"] for own in group["protocols"].values())


def test_rows_and_questions_that_are_left_over_are_counted_and_named(layout, tmp_path):
    path = write(tmp_path / "a.jsonl", "lung", "Yes")
    with path.open("a") as file:
        file.write('{"question_id": "elsewhere-7", "text": "No"}\n')
    found = score(Config(), layout, path, "slake")
    group = found["groups"][""]
    assert group["unmatched"] == ["row 3: 'elsewhere-7': no such question"]
    assert group["unanswered"] == ["slake-en-3", "slake-en-4"]
    said = printed(found)
    assert "2 of 4 test questions of slake answered (file of LLaVA-Med; 2 by id)" in said
    assert "1 match no question: row 3: 'elsewhere-7'" in said
    assert "2 have no answer: slake-en-3; slake-en-4" in said


@pytest.fixture
def print_of_four(monkeypatch):
    """A table of results in print whose split is that of the four questions."""
    numbers = {"four": {"Some model": {"open_recall": 87.1}}}
    table = {
        "splits": {"four": {"reader": "slake", "languages": ["en"], "questions": 4}},
        "results": [{"protocol": "llava_med", "source": "A paper", "note": "a note", "numbers": numbers}],
    }
    monkeypatch.setattr(published, "table", lambda: published.Table.model_validate(table))


def test_print_stands_beside_a_whole_split_under_its_own_protocol(layout, tmp_path, print_of_four):
    whole = score(Config(), layout, write(tmp_path / "a.jsonl", "lung", "Yes", "x", "y"), "slake")
    protocols = whole["groups"][""]["protocols"]
    assert [name for name, own in protocols.items() if own["published"]] == ["llava_med"]
    assert "  in print, four: Some model open_recall 87.1 (A paper; a note)" in printed(whole)
    part = score(Config(), layout, write(tmp_path / "b.jsonl", "lung", "Yes", "x"), "slake")
    assert "in print" not in printed(part)


def test_our_answers_are_read_by_the_form_of_the_run_beside_them(layout, tmp_path):
    thought = "<think>It breathes.</think>"
    texts = [f"{thought}<answer>Lung</answer>", "<think>never closed", f"{thought}<answer>Heart</answer>"]
    rows = [
        {"id": f"slake-en-{number}", "source": "slake", "split": split, "text": text, "truncated": False}
        for number, (split, text) in enumerate(
            zip(["test", "test", "validation"], texts, strict=True), start=1
        )
    ]
    path = tmp_path / "sft.original.jsonl"
    files.write_jsonl(path, rows)
    as_it_stands = score(Config(), layout, path, "slake")["groups"][""]["protocols"]["strict"]["numbers"]
    by_flags = score(Config(), layout, path, "slake", "4.1v", "thinking")
    files.write_json(path.with_suffix(".json"), {"run": str(RUN), "model": "sft"})
    by_summary = score(Config(), layout, path, "slake")
    assert as_it_stands["accuracy"]["value"] == 0
    assert by_flags["groups"] == by_summary["groups"]
    numbers = by_summary["groups"][""]["protocols"]["strict"]["numbers"]
    assert numbers["accuracy"]["n"] == 2  # not the validation row
    assert (numbers["accuracy"]["value"], numbers["unreadable"]["value"]) == (0.5, 0.5)


def test_an_untrained_model_is_read_leniently(layout, tmp_path):
    path = tmp_path / "untrained.original.jsonl"
    files.write_jsonl(path, [{"id": "slake-en-1", "source": "slake", "split": "test", "text": "Lung"}])
    files.write_json(path.with_suffix(".json"), {"run": str(RUN), "model": "untrained"})
    numbers = score(Config(), layout, path, "slake")["groups"][""]["protocols"]["strict"]["numbers"]
    assert numbers["accuracy"]["value"] == 1


def test_the_stages_of_predictions_are_scored_apart(layout, tmp_path):
    rows = [
        {"id": "slake-en-1", "gold": "Lung", "stage": stage, "text": text, "answer": text}
        for stage, text in [("sft", "Lung"), ("dpo", "Heart")]
    ]
    files.write_jsonl(tmp_path / "predictions.jsonl", rows)
    groups = score(Config(), layout, tmp_path / "predictions.jsonl", "slake")["groups"]
    shares = [own["protocols"]["strict"]["numbers"]["accuracy"]["value"] for own in groups.values()]
    assert (list(groups), shares) == (["sft", "dpo"], [1, 0])


def test_the_raw_rows_are_asked_where_conversion_has_not_run(tmp_path):
    layout = Layout(tmp_path / "results")
    path = write(tmp_path / "a.jsonl", "lung")
    with pytest.raises(UserError, match=r"raw/slake: no such folder; .*download --dataset slake"):
        score(Config(), layout, path, "slake")
    row = {
        "img_name": "xmlab1/source.jpg",
        "question": "Which organ?",
        "answer": "Lung",
        "q_lang": "en",
        "answer_type": "OPEN",
    }
    files.write_json(layout.raw("slake") / "train.json", [])
    files.write_json(layout.raw("slake") / "validate.json", [])
    chinese = {**row, "qid": 2, "q_lang": "zh"}
    files.write_json(layout.raw("slake") / "test.json", [{**row, "qid": 1}, chinese])
    settings = Config()
    settings.datasets["slake"].languages = ["en"]
    found = score(settings, layout, path, "slake")
    assert found["questions"] == str(layout.raw("slake"))
    assert (found["groups"][""]["questions"], found["groups"][""]["matched"]) == (1, {"id": 1})


def test_a_configured_judge_is_a_protocol_among_the_others(layout, tmp_path, monkeypatch):
    asked = []

    class Client:
        def __init__(self, url, model, *rest):
            asked.append((url, model))

        def complete(self, messages, **parameters):
            return type("Completion", (), {"text": "VERDICT: CORRECT"})

        def close(self):
            pass

    monkeypatch.setattr("workflow_scripts.evaluation.protocols.judge.OpenAIClient", Client)
    settings = Config()
    settings.evaluation.judge = JudgeSettings(url="http://127.0.0.1:1/v1", model="judge-1")
    found = score(settings, layout, write(tmp_path / "a.jsonl", "a", "No", "b", "c"), "slake")
    own = found["groups"][""]["protocols"]["judge"]["numbers"]
    assert (own["accuracy"]["value"], own["open_accuracy"]["value"]) == (0.75, 1)
    assert found["judge"] == "judge-1" and asked == [("http://127.0.0.1:1/v1", "judge-1")]
    assert len(layout.judged().read_text().splitlines()) == 3


def test_the_command_prints_and_writes(layout, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text(tmp_path / "config.yaml", "tracking: []\n")
    path = write(tmp_path / "a.jsonl", "lung", "Yes", "x", "y")
    arguments = ["--answers", str(path), "--dataset", "slake", "--output", "out/scores.json"]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in PROTOCOLS)
    written = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert written["groups"][""]["protocols"]["strict"]["numbers"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "say --dataset"),
        (["--dataset", "slak"], "--dataset: 'slak' is unknown.*did you mean 'slake'"),
        (
            ["--dataset", "slake", "--model_version", "9v", "--mode", "base"],
            "--model_version: '9v' is unknown",
        ),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    files.write_text(tmp_path / "config.yaml", "tracking: []\n")
    with pytest.raises(UserError, match=error):
        command.main(["--answers", "a.jsonl", *arguments])


def test_rows_of_linked_images_stand_or_fall_together(layout, tmp_path):
    """As VQA-RAD's rephrased questions: four images of which two pairs are linked are two clusters."""
    rows = [{**record(n, n, f"Question {n}?", "Lung", "open"), "linked_id": str(n % 2)} for n in range(1, 5)]
    path = write(tmp_path / "a.jsonl", "lung", "CT", "lung", "CT")
    alone = score(Config(), layout, path, "slake")["groups"][""]["protocols"]["strict"]["numbers"]["accuracy"]
    files.write_jsonl(layout.split(RUN, "test"), rows)
    linked = score(Config(), layout, path, "slake")["groups"][""]["protocols"]["strict"]["numbers"][
        "accuracy"
    ]
    assert (alone["clusters"], linked["clusters"]) == (3, 2)
    assert (linked["value"], linked["n"]) == (0.5, 4)
