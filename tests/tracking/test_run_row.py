"""The row of a run says which is best and whether to trust it, from the files under results/."""

import json

import pytest

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.tracking import journal, names, run_row

RUN = Run("slake", "4.1v", "thinking")


@pytest.fixture
def layout(tmp_path, made_evaluation):
    found = Layout(tmp_path)
    provenance = {"run_fingerprint": "c"}
    files.write_json(found.evaluation(RUN), {**made_evaluation, "provenance": provenance})
    return found


def test_the_row_has_the_accuracy_its_interval_and_what_it_is_to_be_above(layout, made_evaluation):
    found = run_row.of_run(layout, RUN, "c")
    final = made_evaluation["final_stage"]
    score = made_evaluation["groups"][final]["overall"]["all"]["score"]
    assert found.tags["final_stage"] == final
    numbers = found.numbers
    assert [numbers["accuracy_low"], numbers["accuracy_high"]] == pytest.approx(score["interval"], abs=1e-4)
    accuracy = made_evaluation["stages"][final]["overall"]["accuracy"]
    assert numbers["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    floor = made_evaluation["floor"]["question_only"]["overall"]["accuracy"]
    assert numbers["accuracy_floor"] == pytest.approx(floor, abs=1e-4)
    leak_free = made_evaluation["picture"]["leaks"]["free"]["value"]
    assert numbers["accuracy_leak_free"] == pytest.approx(leak_free, abs=1e-4)
    assert {"accuracy_blank", "closed_accuracy", "open_accuracy", "accuracy/slake"} <= numbers.keys()


def test_the_description_is_a_table_with_the_final_line_in_bold(layout, made_evaluation):
    found = run_row.description(run_row.of_run(layout, RUN, "c"), ["[sft](#/x)"])
    table = [line for line in found.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len([line for line in table if line.startswith("| **")]) == 1
    assert "[sft](#/x)" in found and f"**{made_evaluation['final_stage']}**" in found


def test_a_try_is_marked_by_a_tag_and_in_the_description(layout):
    files.write_json(layout.evaluation(RUN), {**files.read_object(layout.evaluation(RUN)), "limit": 32})
    found = run_row.of_run(layout, RUN, "c")
    assert found.tags["limit"] == "32" and "**This is a try" in run_row.description(found, [])


def test_a_run_without_an_evaluation_says_so(tmp_path):
    found = run_row.of_run(Layout(tmp_path), RUN, "c")
    assert found.numbers == {} and "Not evaluated yet" in run_row.description(found, [])


def test_what_another_configuration_has_left_is_not_in_the_row(layout):
    trained = layout.trained("sft", RUN)
    files.write_json(trained / "metrics.json", {"seconds": 7200, "method": "full", "fingerprint": "f"})
    assert run_row.of_run(layout, RUN, "other") == run_row.RunRow()
    lines = journal.Journal(journal.path_of(layout, RUN, "other", "sft"))
    assert lines.hold()
    lines.append("model", path=f"sft/{RUN}", step=1, digest=journal.digest(trained))
    lines.release()
    found = run_row.of_run(layout, RUN, "other")
    assert (found.numbers, found.method, found.evaluation) == ({"hours": 2.0}, "full", None)
    files.write_json(trained / "metrics.json", {"seconds": 3600, "method": "lora", "fingerprint": "g"})
    assert run_row.of_run(layout, RUN, "other") == run_row.RunRow()


def test_the_most_memory_of_this_configuration_counts(tmp_path):
    layout = Layout(tmp_path)
    for configuration, peak in (("c", 2.0), ("other", 9.0)):
        path = layout.journals() / str(RUN) / configuration / "sft.jsonl"
        path.parent.mkdir(parents=True)
        line = {"kind": "metrics", "time": 0, "values": {"system/peak_memory_gb": peak}}
        path.write_text(json.dumps(line) + "\n")
    assert run_row.of_run(layout, RUN, "c").numbers == {"peak_memory_gb": 2.0}


def test_names_are_grouped_alike_for_training_and_validation():
    logs = {
        "loss": 1,
        "rewards/margins": 2,
        "eval_loss": 3,
        "eval_runtime": 4,
        "rows_per_second": 5,
        "note": "x",
    }
    assert names.of_curve(logs) == {
        "train/loss": 1.0,
        "train/rewards/margins": 2.0,
        "validation/loss": 3.0,
        "train/rows_per_second": 5.0,
    }
    assert names.numbers({"eval": {"slake": {"en": {"open": 0.5}}}, "ok": True}) == {
        "eval/slake/en/open": 0.5
    }
