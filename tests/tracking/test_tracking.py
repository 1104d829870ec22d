"""Trackers mirror the stages of a run; one that is dead fails nothing, and is told later what it missed."""

import json
import logging
import struct
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from wandb.proto.wandb_internal_pb2 import Record

from workflow_scripts import tracking
from workflow_scripts.base import attempts, job_log, versions
from workflow_scripts.base.errors import Terminated, UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import __main__ as command
from workflow_scripts.tracking import journal
from workflow_scripts.tracking.experiment import EXPERIMENT
from workflow_scripts.tracking.tracker import Tracker

RUN = Run("slake", "4.1v", "thinking")
REAL = dict(tracking.TRACKERS)


def record(settings, layout, stage, steps=(1, 2), parameters=None):
    parameters = parameters or {"seed": 1, "sft": {"method": "lora"}}
    with tracking.stage(settings, layout, RUN, stage, parameters) as mirror:
        mirror.train_from(steps[0] - 1)
        for step in steps:
            mirror.curve(step, {"train/loss": 1 / step, "train/rewards/margins": 0.5})
        mirror.metrics({"eval": {"slake": {"en": {"closed": 0.5}}}, "name": "text"})
        mirror.artifact(layout.raw("slake") / "manifest.json")


@pytest.fixture
def told(monkeypatch):
    """A tracker that notes what it is told, and fails while `down` is set."""

    class Told(Tracker):
        lines: ClassVar[list] = []
        down = False

        def _note(self, *line):
            if Told.down:
                raise OSError("http://me:p@secret@host/api failed, Bearer secret-key is wrong")
            Told.lines.append(line)

        def open(self, start, fresh):
            self._note("open", start.stage, fresh)

        def curve(self, step, values, time):
            self._note("curve", step)

        def close(self, status, reason, time):
            self._note("close", status)

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", Told)
    monkeypatch.setattr(tracking, "prepare_store", lambda uri, layout: "")
    return Told


def test_mlflow_has_a_parent_per_run_and_a_child_per_stage(layout, seen):
    settings = Config()
    for stage in ("sft", "dpo"):
        record(settings, layout, stage)
    client, parents, children = seen()
    stages = {run.data.tags["stage"]: run for run in children}
    assert len(parents) == 1 and len(children) == 2 and set(stages) == {"sft", "dpo"}
    child = stages["sft"]
    assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert child.data.tags["git_commit"] == parents[0].data.tags["git_commit"]
    assert child.data.params == {"seed": "1", "sft.method": "lora", "version": str(versions.RESULTS["sft"])}
    assert child.data.metrics["eval/slake/en/closed"] == 0.5 and "name" not in child.data.metrics
    history = client.get_metric_history(child.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    assert child.info.status == parents[0].info.status == "FINISHED"
    assert child.data.tags["manifest.slake"] == "slake"
    artifacts = {entry.path for entry in client.list_artifacts(child.info.run_id)}
    assert artifacts == {"config.yaml", "environment", "manifests", "manifest.json"}
    environment = client.download_artifacts(child.info.run_id, "environment/environment.json")
    assert json.loads(Path(environment).read_text())["versions"]["torch"]


def test_a_killed_training_goes_on_in_its_run_and_no_step_is_there_twice(layout, seen):
    settings = Config(tracking=["mlflow", "tensorboard"])
    with pytest.raises(Terminated), tracking.stage(settings, layout, RUN, "sft", {}) as mirror:
        for step in range(1, 23):
            mirror.curve(step, {"train/loss": float(step)})
        raise Terminated(15)
    _, _, children = seen()
    assert [run.info.status for run in children] == ["KILLED"]
    record(settings, layout, "sft", steps=range(21, 25))
    client, parents, children = seen()
    assert len(children) == 1 and children[0].info.status == "FINISHED" == parents[0].info.status
    history = client.get_metric_history(children[0].info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 25))
    assert [step for step, _ in scalars(layout, "sft")["train/loss"]] == list(range(1, 25))


def test_a_stage_that_died_is_closed_when_the_next_one_begins(layout, seen):
    code = (
        "import os, sys; from pathlib import Path; from workflow_scripts import tracking;"
        "from workflow_scripts.configuration.settings import Config;"
        "from workflow_scripts.base.paths import Layout, Run;"
        "stage = tracking.stage(Config(), Layout(Path(sys.argv[1])), Run('slake', '4.1v', 'thinking'), 'validate', {});"
        "mirror = stage.__enter__(); mirror.metrics({'x': 1}); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(layout.root)], check=False)
    record(Config(), layout, "sft")
    _, parents, children = seen()
    assert {run.data.tags["stage"]: run.info.status for run in children} == {
        "validate": "KILLED",
        "sft": "FINISHED",
    }
    assert len(parents) == 1


def test_each_attempt_keeps_its_own_log_also_one_that_was_killed(layout, seen, monkeypatch):
    """The next job of the stage, of another configuration, has written over the readable one by then."""
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(layout.log("validate", str(RUN))))
    code = (
        "import logging, os, sys; from pathlib import Path; from workflow_scripts import tracking;"
        "from workflow_scripts.base import job_log;"
        "from workflow_scripts.configuration.settings import Config;"
        "from workflow_scripts.base.paths import Layout, Run;"
        "log = job_log.kept(); log.__enter__();"
        "stage = tracking.stage(Config(), Layout(Path(sys.argv[1])), Run('slake', '4.1v', 'thinking'), 'validate', {});"
        "mirror = stage.__enter__(); logging.warning('the first'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(layout.root)], check=False)
    with job_log.kept(), tracking.stage(Config(seed=2), layout, RUN, "validate", {}):
        logging.warning("the second")
    client, _, children = seen()
    assert [run.info.status for run in children] == ["FINISHED", "KILLED"]
    assert not any("reason" in run.data.tags for run in children)  # none was said
    for run, number, said, other in zip(
        children, (2, 1), ("second", "first"), ("first", "second"), strict=True
    ):
        (log,) = client.list_artifacts(run.info.run_id, "logs")
        text = Path(client.download_artifacts(run.info.run_id, log.path)).read_text()
        assert log.path == f"logs/attempt-{number}.log"
        assert f"warning the {said}\n" in text and f"the {other}" not in text


def test_a_training_that_goes_on_keeps_the_log_of_each_job_and_the_reason_of_its_end(
    layout, seen, monkeypatch
):
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(layout.log("sft", str(RUN))))
    ends = (Terminated(15), UserError("no room at https://me:secret@host"), None)
    told = ("Terminated: stopped by SIGTERM", "UserError: no room at https://host", "")
    for number, (error, reason) in enumerate(zip(ends, told, strict=True), 1):
        expected = pytest.raises(type(error)) if error else nullcontext()
        with expected, job_log.kept(), tracking.stage(Config(), layout, RUN, "sft", {}):
            logging.warning("job %d", number)
            if error:
                raise error
        client, _, (run,) = seen()
        assert run.data.tags.get("reason", "") == reason
    logs = [entry.path for entry in client.list_artifacts(run.info.run_id, "logs")]
    assert logs == [f"logs/attempt-{number}.log" for number in (1, 2, 3)]
    first = Path(client.download_artifacts(run.info.run_id, logs[0])).read_text()
    assert "job 1\n" in first and "job 2" not in first
    assert "error   Terminated: stopped by SIGTERM" in first  # which it said after it was closed


def test_another_configuration_is_another_parent_that_names_the_one_before(layout, seen):
    for seed in (1, 2):
        record(Config(seed=seed), layout, "sft")
    _, (second, first), children = seen()
    assert second.data.tags["previous_run"] == first.info.run_id
    assert second.data.tags["previous_configuration"] == first.data.params["configuration"]
    assert first.data.params["configuration"] != second.data.params["configuration"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {
        first.info.run_id,
        second.info.run_id,
    }


def test_what_changes_no_result_is_the_same_parent(layout, seen):
    record(Config(), layout, "sft")
    record(Config(sft={"log_steps": 3}, tracking=["mlflow", "tensorboard"]), layout, "dpo")
    assert len(seen()[1]) == 1


def test_a_store_that_was_moved_with_its_results_shows_its_files_and_takes_more(layout, seen, tmp_path):
    record(Config(), layout, "sft")
    moved = Layout(tmp_path / "elsewhere")
    layout.root.rename(moved.root)
    tracking.prepare(Config(), moved)
    client, parents, children = seen(moved)
    for run in (*parents, *children):
        assert run.info.artifact_uri.startswith(moved.root.as_uri())
    read = client.download_artifacts(children[0].info.run_id, "config.yaml")
    assert Path(read).read_text().startswith("# The configuration")
    record(Config(), moved, "dpo")
    _, parents, children = seen(moved)
    assert len(parents) == 1 and len(children) == 2
    assert not layout.root.exists()


def test_a_deleted_experiment_is_restored_with_its_runs(layout, seen, caplog):
    settings = Config()
    record(settings, layout, "sft")
    client = seen()[0]
    experiment = client.get_experiment_by_name(EXPERIMENT)
    client.delete_experiment(experiment.experiment_id)
    with caplog.at_level(logging.WARNING):
        record(settings, layout, "dpo")
    found = client.get_experiment_by_name(EXPERIMENT)
    assert (found.experiment_id, found.lifecycle_stage) == (experiment.experiment_id, "active")
    assert {run.data.tags["stage"] for run in seen()[2]} == {"sft", "dpo"}
    assert f"experiment {EXPERIMENT} was deleted in MLflow; restored" in caplog.text
    assert "not recording" not in caplog.text


def test_the_experiment_opens_as_one_of_model_training(layout, seen):
    record(Config(), layout, "sft")
    client, _, _ = seen()
    tags = client.get_experiment_by_name(EXPERIMENT).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_run_names_its_user_its_command_and_its_data(layout, seen, monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    data = layout.split(RUN, "train")
    data.parent.mkdir(parents=True)
    data.write_text("{}\n")
    with tracking.stage(Config(), layout, RUN, "sft", {}) as mirror:
        mirror.dataset(data, "abc", "training")
    client, parents, (child,) = seen()
    assert child.data.tags["mlflow.user"] == parents[0].data.tags["mlflow.user"] == "somebody"
    assert child.data.tags["mlflow.source.name"].startswith("python -m")
    (found,) = client.get_run(child.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == (f"{RUN}/train", "abc")
    assert json.loads(found.dataset.source) == {"uri": f"data/{RUN}/train.jsonl"}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}


def test_every_tracker_that_the_configuration_offers_is_there():
    schema = Config.model_json_schema()["properties"]["tracking"]
    assert schema["items"]["enum"] == list(tracking.TRACKERS)


def test_the_token_of_the_hub_is_not_tracked(layout, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    record(Config(tracking=["mlflow", "tensorboard"]), layout, "sft")
    written = [path for path in layout.root.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".db", ".json", ".jsonl", ".yaml"}
    assert not [path for path in written if b"hf_secretsecretsecret" in path.read_bytes()]
    assert "hf_secretsecretsecret" not in caplog.text


def test_a_dead_server_is_warned_about_once_and_gets_everything_once_it_is_back(
    layout, seen, caplog, monkeypatch
):
    with caplog.at_level(logging.WARNING):
        record(Config(tracking_uri="http://127.0.0.1:9"), layout, "sft")
    ours = [entry.getMessage() for entry in caplog.records if entry.name.startswith("workflow_scripts")]
    assert len(ours) == 1 and "mlflow is not recording" in ours[0] and "--sync" in ours[0]
    for _ in range(2):  # the second has nothing to send
        counts = tracking.sync(Config(), layout)
    assert set(counts[next(iter(counts))].values()) == {0}
    client, parents, children = seen()
    assert len(parents) == len(children) == 1 and children[0].info.status == "FINISHED"
    history = client.get_metric_history(children[0].info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]


def test_a_store_that_is_gone_is_filled_again(layout, seen, new_store):
    record(Config(), layout, "sft")
    before = seen()[2][0].data
    (layout.root / "mlflow.db").write_bytes(new_store.read_bytes())
    assert seen()[2] == []
    tracking.sync(Config(), layout)
    (child,) = seen()[2]
    assert (child.data.metrics, child.data.params) == (before.metrics, before.params)


def test_a_file_that_has_changed_since_is_not_sent_as_the_one_of_then(layout, seen):
    page = layout.root / "page.html"
    page.write_text("by this configuration")
    with tracking.stage(Config(tracking_uri="http://127.0.0.1:9"), layout, RUN, "evaluate", {}) as mirror:
        mirror.artifact(page)
        mirror.artifact(layout.raw("slake") / "manifest.json")
    page.write_text("by another one")
    tracking.sync(Config(), layout)
    client, _, (run,) = seen()
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert "manifest.json" in artifacts and "page.html" not in artifacts


def test_an_outage_in_the_middle_loses_nothing_and_repeats_nothing(layout, told, caplog):
    told.lines = []
    with tracking.stage(Config(), layout, RUN, "sft", {}) as mirror:
        mirror.curve(1, {"train/loss": 1.0})
        while ("curve", 1) not in told.lines:
            pass
        told.down = True
        mirror.curve(2, {"train/loss": 1.0})
    assert "not recording" in caplog.text and "secret" not in caplog.text
    told.down = False
    assert command.main(["--sync", "--results", str(layout.root)]) == 0
    assert [line for line in told.lines if line[0] != "open"] == [
        ("curve", 1),
        ("curve", 2),
        ("close", "FINISHED"),
    ]
    assert [line for line in told.lines if line[0] == "open"] == [
        ("open", "sft", True),
        ("open", "sft", False),
    ]


def test_sync_says_in_one_line_what_is_still_not_reachable(layout, told):
    told.lines = []
    told.down = True
    with tracking.stage(Config(), layout, RUN, "sft", {}):
        pass
    with pytest.raises(UserError, match=r"^mlflow: .*sft.jsonl is not sent whole .*http://host") as error:
        command.main(["--sync", "--results", str(layout.root)])
    assert "secret" not in str(error.value)


def test_a_tracker_that_hangs_does_not_hold_the_training_up(layout, told, monkeypatch):
    import threading
    import time

    free = threading.Event()
    monkeypatch.setattr(told, "curve", lambda self, step, values, time: free.wait(30))
    with tracking.stage(Config(), layout, RUN, "sft", {}) as mirror:
        started = time.monotonic()
        for step in range(1, 50):
            mirror.curve(step, {"train/loss": 1.0})
        assert time.monotonic() - started < 20
        free.set()


def test_check_says_what_is_configured_where_and_how_large_and_what_waits(layout, capsys, told):
    told.lines, told.down = [], True
    with tracking.stage(Config(), layout, RUN, "sft", {}):
        pass
    assert command.main(["--check", "--results", str(layout.root)]) == 0
    said = capsys.readouterr().out
    assert (
        f"mlflow: sqlite:///{layout.root}/mlflow.db, on this machine; reachable; experiment glm-medvqa: 0 run(s)"
        in said
    )
    assert "line(s) of 1 journal(s)" in said and "MiB" in said and "pictures of the data are sent too" in said


def test_check_names_a_server_that_does_not_answer_without_its_password(layout, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    assert command.main(["--check", "--results", str(layout.root)]) == 0
    said = capsys.readouterr().out
    assert "http://127.0.0.1:9, a server; not reachable" in said and "secret" not in said


def test_no_message_repeats_the_credentials_of_the_environment(layout, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        record(Config(), layout, "sft")
    assert "mlflow is not recording" in caplog.text and "secret" not in caplog.text
    kept = [path for path in layout.journals().rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if b"secret" in path.read_bytes()]


def test_a_failing_stage_fails_and_is_recorded_as_failed(layout, seen):
    with pytest.raises(RuntimeError, match="stage"), tracking.stage(Config(), layout, RUN, "convert", {}):
        raise RuntimeError("stage")
    _, parents, children = seen()
    assert {run.info.status for run in (*parents, *children)} == {"FAILED"}


@pytest.mark.slow
def test_several_processes_may_start_one_store(layout):
    (layout.root / "mlflow.db").unlink()
    code = (
        "import sys; from pathlib import Path; from workflow_scripts import tracking;"
        "from workflow_scripts.configuration.settings import Config;"
        "from workflow_scripts.base.paths import Layout; layout = Layout(Path(sys.argv[1]));"
        "print(tracking.prepare_store(tracking.tracking_uri(Config(), layout), layout))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(layout.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate()[0].strip() for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)


def test_the_configured_server_comes_before_the_environment_and_the_store(layout, monkeypatch):
    assert tracking.tracking_uri(Config(), layout) == f"sqlite:///{layout.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking.tracking_uri(Config(), layout) == "http://127.0.0.1:1"
    assert tracking.tracking_uri(Config(tracking_uri="http://127.0.0.1:2"), layout) == "http://127.0.0.1:2"


def folder_of(layout, stage):
    (path,) = journal.all_of(layout, RUN)
    return layout.root / "tensorboard" / str(RUN) / path.parent.name / stage


def events_of(layout, stage):
    events = EventAccumulator(str(folder_of(layout, stage)), size_guidance={"tensors": 0})
    events.Reload()
    return events


def scalars(layout, stage):
    events = events_of(layout, stage)
    return {
        tag: [(point.step, float(make_ndarray(point.tensor_proto))) for point in events.Tensors(tag)]
        for tag in events.PluginTagToContent("scalars")
    }


def test_tensorboard_reads_the_curve_the_scores_and_the_parameters(layout):
    record(Config(tracking=["tensorboard"]), layout, "sft")
    read = {tag: found for tag, found in scalars(layout, "sft").items() if "system/" not in tag}
    assert read == {
        "train/loss": [(1, 1.0), (2, 0.5)],
        "train/rewards/margins": [(1, 0.5), (2, 0.5)],
        "eval/slake/en/closed": [(0, 0.5)],
    }
    events = events_of(layout, "sft")
    (parameters,) = events.Tensors("parameters")
    assert list(events.PluginTagToContent("text")) == ["parameters"]
    assert make_ndarray(parameters.tensor_proto).item() == b"- seed: 1\n- sft.method: lora\n- version: 1"


def test_tensorboard_draws_two_configurations_apart(layout):
    for seed in (1, 2):
        record(Config(tracking=["tensorboard"], seed=seed), layout, "sft")
    assert len(list((layout.root / "tensorboard" / str(RUN)).glob("*/sft"))) == 2


def wandb_records(path):
    """The records of an offline run of W&B: a LevelDB log of blocks of 32 kB, after a header of 7 bytes."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the record is whole, or this is its last part
            yield Record.FromString(whole)
            whole = b""


def wandb_history(path):
    """The (step, values) that an offline run of W&B keeps, its summary and its group."""

    def plain(items):
        found = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        return {key: value for key, value in found.items() if key[0] != "_" or key == "_step"}

    points, summary, group = [], {}, ""
    for found in wandb_records(path):
        if found.HasField("run"):
            group = found.run.run_group
        if found.HasField("history"):
            values = plain(found.history.item)
            points.append((values.pop("_step", found.history.step.num), values))
        if found.HasField("summary"):
            summary |= plain(found.summary.update)
    return points, summary, group


def test_names_and_steps_are_the_same_in_each_tracker_also_after_a_kill(layout, seen, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    settings = Config(tracking=["mlflow", "tensorboard", "wandb"])
    with pytest.raises(Terminated), tracking.stage(settings, layout, RUN, "sft", {"seed": 1}) as mirror:
        for step in (1, 2):
            mirror.curve(step, {"train/loss": 1 / step, "train/rewards/margins": 0.5})
        raise Terminated(15)
    record(settings, layout, "sft", steps=(2, 3))  # from a checkpoint after step 1
    (path,) = journal.all_of(layout, RUN)
    attempt, configuration = journal.Journal(path).attempt, path.parent.name

    told: dict[str, dict] = {"tensorboard": scalars(layout, "sft"), "wandb": {}, "mlflow": {}}
    # Not by their names, which put a second one of the same second (`…-1`) before the first.
    parts = sorted(
        (layout.root / "wandb").glob("wandb/offline-run-*/*.wandb"), key=lambda part: part.stat().st_mtime_ns
    )
    assert {part.stem for part in parts} == {f"run-{attempt}"}
    for part in parts:
        points, summary, group = wandb_history(part)
        assert group == f"{RUN} {configuration}"
        for step, values in points:
            for key, value in values.items():
                told["wandb"].setdefault(key, []).append((step, value))
        told["wandb"] |= {
            key: [(0, value)] for key, value in summary.items() if key not in told["wandb"] and key[0] != "_"
        }
    client, _, (child,) = seen()
    for key in child.data.metrics:
        told["mlflow"][key] = [
            (point.step, point.value) for point in client.get_metric_history(child.info.run_id, key)
        ]

    curves = {
        "train/loss": [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))],
        "eval/slake/en/closed": [(0, 0.5)],
    }
    for name, found in told.items():
        assert {key: found.get(key) for key in curves} == curves, name
        assert found.keys() == told["mlflow"].keys(), name
    assert child.data.tags["configuration"] == configuration
    assert (layout.root / "tensorboard" / str(RUN) / configuration / "sft").is_dir()


@pytest.mark.parametrize("missing", ["mlflow", "tensorboard", "wandb"])
def test_each_tracker_may_be_missing_and_the_others_go_on(layout, told, caplog, monkeypatch, missing):
    """`told` stands for the others; what is not installed cannot be imported."""
    others = {name: told for name in tracking.TRACKERS if name != missing}
    monkeypatch.setattr(tracking, "TRACKERS", {missing: REAL[missing], **others})
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    record(Config(tracking=list(REAL)), layout, "sft")
    assert f"{missing} is not recording (ModuleNotFoundError" in caplog.text
    assert told.lines.count(("close", "FINISHED")) == 2


@pytest.mark.slow
def test_without_any_tracker_installed_the_package_imports_and_prepares(layout):
    code = (
        "import sys; sys.modules.update(mlflow=None, tensorboard=None, wandb=None);"
        "from workflow_scripts import tracking; from workflow_scripts.stages import convert, report;"
        "from workflow_scripts.configuration.settings import Config; from workflow_scripts.base.paths import Layout;"
        "from pathlib import Path; settings = Config(tracking=['mlflow', 'tensorboard', 'wandb']);"
        "tracking.prepare(settings, Layout(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(layout.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "mlflow is not recording" in done.stderr, done.stderr
