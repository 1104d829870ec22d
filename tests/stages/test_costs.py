"""What a run has cost: summed over its attempts, and said to be unknown where it is."""

import json

import pytest

from workflow_scripts.base import slurm, usage
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.stages import costs

RUN = Run("slake", "4.1v", "thinking")


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)

    def add(stage: str, name: str, *lines: dict) -> None:
        ledger = usage.ledger_of(layout.log(stage, name))
        ledger.parent.mkdir(parents=True, exist_ok=True)
        ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))

    add("convert", str(RUN), {"attempt": "a", "seconds": 36, "gpus": 0, "memory": 1e9, "energy": None})
    training = {"seconds": 7200, "gpus": 2, "memory": 4e10, "energy": 7.2e6}
    add("sft", str(RUN), {"attempt": "a"}, {"attempt": "b"}, {"attempt": "b", **training})
    for variant in ("original", "blank"):
        asked = {"seconds": 1800, "gpus": 1, "memory": 3e10, "energy": None}
        add("ask", f"{RUN}/sft.{variant}", {"attempt": "a", **asked})
    add("ask", "rad_4.1v_base/sft.original", {"attempt": "a", "seconds": 1, "gpus": 1})  # another run's
    journal = layout.journals() / str(RUN) / "c" / "sft.jsonl"
    journal.parent.mkdir(parents=True)
    event = {"kind": "metrics", "time": 0, "values": {"system/peak_gpu_memory_gb": 70.0}}
    journal.write_text(json.dumps(event) + "\n")
    return layout


def test_the_costs_of_all_attempts_are_summed_and_unknown_ones_are_said(layout):
    rows = {row["stage"]: tuple(row.values())[1:] for row in costs.of_run(layout, RUN)}
    assert rows == {
        "convert": ("1", "0.01", "0.00", "1.0", "–", "–"),
        "sft": ("2", "at least 2.00", "at least 4.00", "40.0", "75.2", "at least 2.00"),
        "ask": ("2", "1.00", "1.00", "30.0", "unknown", "unknown"),
        "all": ("5", "at least 3.01", "at least 5.00", "40.0", "75.2", "at least 2.00"),
    }


def test_of_a_slurm_job_that_others_use_each_attempt_counts_its_own_part(layout, monkeypatch):
    """Of this run, by `groups`, or of others, in an allocation of one's own."""
    for stage, job, shared in (("convert", "7", True), ("validate", "9", True), ("sft", "8", False)):
        ledger = usage.ledger_of(layout.log(stage, str(RUN)))
        ledger.parent.mkdir(parents=True, exist_ok=True)
        taken = {"attempt": "a", "slurm_job": job, "shared": shared, "seconds": 36, "gpus": 0}
        ledger.write_text(json.dumps(taken))
    told = "7|3600|cpu=1||\n8|7200|cpu=1||\n9|3600|cpu=1||\n"
    monkeypatch.setattr(
        slurm,
        "ask",
        lambda *command: slurm.Told("".join(x for x in told.splitlines(True) if x[0] in command[-1])),
    )
    hours = {row["stage"]: row["hours"] for row in costs.of_run(layout, RUN)}
    assert hours == {"convert": "0.01", "validate": "0.01", "sft": "2.00", "ask": "1.00", "all": "3.02"}


def test_the_table_is_aligned_and_empty_where_nothing_is_known(layout, tmp_path):
    head, *lines = costs.table(layout, RUN).splitlines()
    assert head.split("  ")[0] == "stage" and len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert costs.table(Layout(tmp_path / "none"), RUN) == ""
