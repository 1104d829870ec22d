"""MLflow mirrors the stages of a run; a tracker that is dead fails nothing."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from workflow_scripts import tracking
from workflow_scripts.base import versions
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import EXPERIMENT

RUN = Run("slake", "4.1v", "thinking")


@pytest.fixture
def layout(tmp_path):
    for folder in (tmp_path / "raw" / "slake", tmp_path / "models" / "4.1v_thinking"):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"fingerprint": folder.name, "files": {}}))
    return Layout(tmp_path)


def record(settings, layout, stage):
    with tracking.stage(settings, layout, RUN, stage, {"seed": 1, "sft": {"method": "lora"}}) as mirror:
        for step in (1, 2):
            mirror.curve(step, {"loss": 1 / step, "rewards/margins": 0.5})
        mirror.metrics({"overall": {"accuracy": 0.5, "n": 4}, "name": "text"})
        mirror.table([{"id": "1", "answer": "是"}], "predictions")
        mirror.artifact(layout.raw("slake") / "manifest.json")


def test_mlflow_has_a_parent_per_run_and_a_child_per_stage(layout):
    from mlflow import MlflowClient

    settings = Config()
    for stage in ("sft", "dpo"):
        record(settings, layout, stage)
    client = MlflowClient(tracking.tracking_uri(settings, layout))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags.get("level") == "run"]
    children = {run.data.tags["stage"]: run for run in runs if "stage" in run.data.tags}
    assert len(parents) == 1 and set(children) == {"sft", "dpo"}
    child = children["sft"]
    assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert child.data.tags["git_commit"] == parents[0].data.tags["git_commit"]
    assert child.data.params == {"seed": "1", "sft.method": "lora", "version": str(versions.RESULTS["sft"])}
    assert child.data.metrics["overall.accuracy"] == 0.5 and "name" not in child.data.metrics
    assert [point.value for point in client.get_metric_history(child.info.run_id, "loss")] == [1.0, 0.5]
    assert child.info.status == parents[0].info.status == "FINISHED"
    artifacts = {entry.path for entry in client.list_artifacts(child.info.run_id)}
    assert artifacts == {"config.yaml", "manifests", "manifest.json", "predictions.json"}
    table = json.loads(Path(client.download_artifacts(child.info.run_id, "predictions.json")).read_text())
    assert table == {"columns": ["id", "answer"], "data": [["1", "是"]]}


def test_more_parameters_than_mlflow_takes_at_once_are_all_there(layout):
    from mlflow import MlflowClient

    settings, parameters = Config(), {f"key{number}": number for number in range(250)}
    with tracking.stage(settings, layout, RUN, "sft", parameters):
        pass
    client = MlflowClient(tracking.tracking_uri(settings, layout))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    most = max(len(run.data.params) for run in client.search_runs([experiment.experiment_id]))
    assert most == 250 + 1  # and the version


def test_a_deleted_experiment_is_restored_with_its_runs(layout, caplog):
    from mlflow import MlflowClient

    settings = Config()
    record(settings, layout, "sft")
    client = MlflowClient(tracking.tracking_uri(settings, layout))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    client.delete_experiment(experiment.experiment_id)
    with caplog.at_level(logging.WARNING):
        record(settings, layout, "dpo")
    found = client.get_experiment_by_name(EXPERIMENT)
    assert (found.experiment_id, found.lifecycle_stage) == (experiment.experiment_id, "active")
    runs = client.search_runs([found.experiment_id])
    assert {run.data.tags.get("stage") for run in runs} == {None, "sft", "dpo"} and len(runs) == 3
    assert f"experiment {EXPERIMENT} was deleted in MLflow; restored" in caplog.text
    assert "not recording" not in caplog.text


def test_every_tracker_that_the_configuration_offers_is_there():
    schema = Config.model_json_schema()["properties"]["tracking"]
    assert schema["items"]["enum"] == list(tracking.TRACKERS)


def test_the_token_of_the_hub_is_not_tracked(layout, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    record(Config(tracking=["mlflow", "tensorboard"]), layout, "sft")
    written = [path for path in layout.root.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".db", ".json", ".yaml"}
    assert not [path for path in written if b"hf_secretsecretsecret" in path.read_bytes()]
    assert "hf_secretsecretsecret" not in caplog.text


def test_a_dead_server_is_warned_about_once_and_fails_nothing(layout, caplog):
    settings = Config(tracking_uri="http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        record(settings, layout, "sft")
    ours = [entry.getMessage() for entry in caplog.records if entry.name.startswith("workflow_scripts")]
    assert len(ours) == 1 and "mlflow is not recording" in ours[0]


def test_no_message_repeats_the_credentials_of_the_environment(layout, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        record(Config(), layout, "sft")
    assert "mlflow is not recording" in caplog.text and "secret" not in caplog.text
    mirror = tracking.Recorder()
    mirror.open("mlflow", lambda: (_ for _ in ()).throw(OSError("http://me:p@secret@host/api failed")))
    assert "http://host/api failed" in caplog.text and "secret" not in caplog.text


def test_a_tracker_that_dies_halfway_is_left_alone(layout, caplog):
    mirror = tracking.Recorder()

    class Dying:
        def curve(self, step, values):
            raise OSError("connection lost")

    mirror.open("mlflow", Dying)
    mirror.curve(1, {"loss": 1.0})
    mirror.curve(2, {"loss": 1.0})
    assert caplog.text.count("connection lost") == 1


def test_a_failing_stage_fails_and_is_recorded_as_failed(layout):
    from mlflow import MlflowClient

    with pytest.raises(RuntimeError, match="stage"), tracking.stage(Config(), layout, RUN, "sft", {}):
        raise RuntimeError("stage")
    client = MlflowClient(tracking.tracking_uri(Config(), layout))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FAILED"}


@pytest.mark.slow
def test_several_processes_may_start_one_store(layout):
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


def test_tensorboard_reads_the_curve_the_scores_and_the_parameters(layout):
    record(Config(tracking=["tensorboard"]), layout, "sft")
    events = EventAccumulator(str(layout.root / "tensorboard" / str(RUN) / "sft"))
    events.Reload()
    read = {
        tag: [(point.step, float(make_ndarray(point.tensor_proto))) for point in events.Tensors(tag)]
        for tag in events.PluginTagToContent("scalars")
    }
    assert read == {
        "loss": [(1, 1.0), (2, 0.5)],
        "rewards/margins": [(1, 0.5), (2, 0.5)],
        "final/overall.accuracy": [(0, 0.5)],
        "final/overall.n": [(0, 4.0)],
    }
    (parameters,) = events.Tensors("parameters")
    assert list(events.PluginTagToContent("text")) == ["parameters"]
    assert make_ndarray(parameters.tensor_proto).item() == b"- seed: 1\n- sft.method: lora\n- version: 1"


def test_offline_wandb_keeps_the_curve(layout, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    record(Config(tracking=["wandb"]), layout, "sft")
    assert list((layout.root / "wandb").glob("wandb/offline-run-*/*.wandb"))
