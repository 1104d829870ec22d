"""The table of the runs, on made results folders."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import attempts
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import reading, runs
from workflow_scripts.stages import status

SETTINGS = {
    "datasets": {"slake": {"reader": "slake", "embedded": 12}},
    "models": {"4.1v": {"base": {"embedded": True}}},
}
RUN = Run("slake", "4.1v", "base")
TRAINING = (
    "12:00:00 training on 3 rows\n"
    "12:00:05 step 5/40  loss 1.2000  lr 1.00e-05  7.5 rows/s  3.0 rows/image  00:20 left\n"
    "12:00:10 step 10/40  loss 0.9500  lr 1.00e-05  8.5 rows/s  3.0 rows/image  01:02:03 left\n"
    "12:00:11 a line of a library\n"
)
ASKING = "12:00:00 60 of 900 questions, 1.5 a second, 9 minutes left\n"


@pytest.fixture
def settings():
    return reading.validate(SETTINGS, where="a test")


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "results")


@pytest.fixture(autouse=True)
def queue(command):
    """`queue("7|uuid|PENDING|Priority|/somewhere|rule_…")` is what squeue says, and "7|TIMEOUT" what sacct says to have `ended`.

    The controller has forgotten it, or is `away`.
    """

    def say(*lines: str, ended: str = "", away: bool = False) -> None:
        told = "\n".join(lines)
        refused = "Unable to contact slurm controller" if away else "Invalid job id specified"
        for name, script in (
            ("squeue", f"cat <<END\n{told}\nEND"),
            ("scontrol", f"echo 'slurm_load_jobs error: {refused}' >&2; exit 1"),
            ("sacct", f"echo '{ended}'"),
        ):
            command(name, script)

    say()
    return say


def made(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def noted(layout, stage: str, name: str, log: str = "", **values) -> None:
    path = layout.log(stage, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(log, encoding="utf-8")
    note = {"invocation": "one", "command": "", "before": [], **values}
    attempts.note_of(path).write_text(json.dumps(note), encoding="utf-8")


def rows(settings, layout) -> list[tuple[str, str, str]]:
    found = status.rows(settings, layout, RUN, status.SlurmQueue())
    return [(row.stage, row.state, row.reason) for row in found]


def up_to_sft(settings, layout) -> None:
    for job in status.jobs(settings, layout, RUN):
        if job.stage == "sft":
            return
        made(*job.outputs)


def test_nothing_yet(settings, layout):
    ((stages, state, _),) = rows(settings, layout)
    assert state == "waiting"
    assert stages == "download, convert, validate, sft, preferences, dpo, ask, evaluate"


def test_all_done_is_one_line(settings, layout):
    for job in status.jobs(settings, layout, RUN):
        made(*job.outputs)
    assert rows(settings, layout) == [("all", "done", "")]


def test_a_running_training_and_what_is_around_it(settings, layout):
    up_to_sft(settings, layout)
    noted(layout, "sft", str(RUN), TRAINING, state="running", host=socket.gethostname(), process=os.getpid())
    assert rows(settings, layout) == [
        ("download, convert, validate", "done", ""),
        ("sft", "running", "step 10/40, loss 0.9500, 8.5 rows/s, 01:02:03 left"),
        ("preferences, dpo, ask, evaluate", "waiting", ""),
    ]


def test_a_model_that_is_asked(settings, layout):
    noted(layout, "ask", f"{RUN}/sft.original", ASKING, state="running", host="elsewhere")
    assert ("ask", "running", "60 of 900 questions, 1.5 a second, 9 min left") in rows(settings, layout)


def test_what_asking_says_is_understood(tmp_path, caplog, monkeypatch):
    from workflow_scripts.evaluation import asking

    now = 0.0
    monkeypatch.setattr(asking.time, "monotonic", lambda: now)
    progress = asking.AskingProgress(100)
    now = 100.0
    with caplog.at_level(logging.INFO):
        progress.one_more()
    (tmp_path / "ask.log").write_text("\n".join(caplog.messages), encoding="utf-8")
    assert status.progress(tmp_path / "ask.log") == "1 of 100 questions, 0.0 a second, 165 min left"


def test_a_failed_stage_says_why_where_and_what_next(settings, layout):
    noted(layout, "sft", str(RUN), state="failed", reason="loss is nan at step 3")
    (row,) = [row for row in status.rows(settings, layout, RUN, status.SlurmQueue()) if row.stage == "sft"]
    assert (row.state, row.reason) == ("failed", "loss is nan at step 3")
    assert row.log == str(layout.log("sft", str(RUN)))
    assert row.go_on == f"mend that, then snakemake {layout.evaluation(RUN)}"
    limited = settings.model_copy(update={"limit": 32})
    (row,) = [row for row in status.rows(limited, layout, RUN, status.SlurmQueue()) if row.stage == "sft"]
    assert row.go_on == f"mend that, then snakemake --config limit=32 -- {layout.evaluation(RUN)}"


def test_a_killed_training_goes_on_from_its_checkpoint(settings, layout):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    noted(layout, "sft", str(RUN), state="running", host=socket.gethostname(), process=ended.pid)
    for step in (90, 100):
        made(layout.checkpoints("sft", RUN) / f"checkpoint-{step}" / "x")
    (row,) = [row for row in status.rows(settings, layout, RUN, status.SlurmQueue()) if row.stage == "sft"]
    assert (row.state, row.reason) == ("stopped", "killed")
    assert row.go_on.endswith("(goes on from step 100)")


def test_jobs_of_slurm(settings, layout, queue):
    noted(layout, "sft", str(RUN), TRAINING, state="running", host="n1", process=1, slurm_job="7")
    queue(f"7|uuid|RUNNING|None|{os.getcwd()}|rule_sft_wildcards_slake_4.1v_base")
    assert ("sft", "running", "step 10/40, loss 0.9500, 8.5 rows/s, 01:02:03 left") in rows(settings, layout)
    queue("9|uuid|RUNNING|None|/somewhere|another", ended="7|TIMEOUT")
    assert ("sft", "stopped", "TIMEOUT") in rows(settings, layout)
    queue(ended="7|NODE_FAIL", away=True)  # it may have begun again
    assert ("sft", "running", "step 10/40, loss 0.9500, 8.5 rows/s, 01:02:03 left") in rows(settings, layout)
    queue("9|uuid|RUNNING|None|/somewhere|another")
    assert ("sft", "stopped", "SLURM does not know job 7 any more") in rows(settings, layout)
    queue(f"8|uuid|PENDING|Priority|{os.getcwd()}|rule_sft_wildcards_slake_4.1v_base")
    assert ("sft", "queued", "Priority, after running") in rows(settings, layout)
    queue("7|uuid|PENDING|Priority|/elsewhere|rule_sft_wildcards_slake_4.1v_base")  # of the same name
    assert ("sft", "queued", "Priority, after running") not in rows(settings, layout)
    queue(f"8|uuid|PENDING|Resources|{os.getcwd()}|rule_ask_wildcards_slake_4.1v_base_sft_original")
    assert ("ask", "queued", "Resources") in rows(settings, layout)


def test_the_table_is_in_columns_and_names_are_checked(settings, layout, capsys):
    noted(layout, "sft", str(RUN), state="failed", reason="x" * 1000)
    status.command(settings, layout)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "stage", "state", "reason", "log", "how", "to", "go", "on"]
    (line,) = [line for line in lines if "failed" in line]
    assert line.index("failed") == header.index("state") and "x" * 200 not in line
    with pytest.raises(UserError, match="did you mean 'slake_4.1v_base'"):
        status.command(settings, layout, ["slake_4.1v_bas"])


@given(st.binary())
def test_any_log_has_a_progress(tmp_path_factory, content):
    log = tmp_path_factory.mktemp("log") / "x.log"
    log.write_bytes(content)
    assert isinstance(status.progress(log), str)


def test_the_command_imports_nothing_heavy():
    code = (
        "import sys; from workflow_scripts import status, preflight; from workflow_scripts.stages import status, preflight;"
        "print({'torch', 'transformers', 'matplotlib', 'mlflow', 'snakemake', 'pandas'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


def test_the_logs_are_where_the_rules_write_them(settings):
    """rules/*.smk and the table name the same files."""
    root = Path(__file__).resolve().parents[2]
    written = "".join(path.read_text(encoding="utf-8") for path in (root / "rules").glob("*.smk"))
    run = "{dataset}_{model_version}_{mode}"
    names = {"slake_4.1v_base": run, "4.1v_base": "{model_version}_{mode}", "slake": "{source}"}
    for job in status.jobs(settings, Layout(Path("<results>")), next(iter(runs.chosen(settings)))):
        log = str(job.log)
        if job.stage == "ask":
            log = str(job.log.with_name("{model}.{variant}.log"))
        name = next(name for name in names if name in log)
        assert f'"{log.replace(name, names[name])}"' in written
