"""An MLflow server on a real Postgres loses nothing of what sixteen jobs write at once."""

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workflow_scripts import tracking
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import server, tracker
from workflow_scripts.tracking.experiment import EXPERIMENT

JOBS, STEPS = 16, 20


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def address():
    if lacking := server.missing():
        pytest.skip(lacking)
    # The user that Postgres runs as when we are root must reach it.
    with tempfile.TemporaryDirectory(prefix="medvqa-") as place:
        os.chmod(place, 0o755)
        folder, port = Path(place) / "server", free_port()
        with server.postgres(folder) as database, open(Path(place) / "log", "wb") as log:
            environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
            process = subprocess.Popen(
                server.command(database, folder, port), stdout=log, stderr=log, env=environment
            )
            address = f"http://127.0.0.1:{port}"
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, (Path(place) / "log").read_text()
                    time.sleep(0.5)
            yield address
            process.terminate()
            process.wait()


def job(address, root, number):
    layout, run = Layout(root / str(number)), Run("slake", "4.1v", "thinking")
    settings = Config(tracking_uri=address, seed=number)
    with tracking.stage(settings, layout, run, "sft", {"seed": number}) as record:
        for step in range(1, STEPS + 1):
            record.curve(step, {"train/loss": number + step / 100})
    return {name: sent for path in tracking.sync(settings, layout).values() for name, sent in path.items()}


@pytest.mark.slow
def test_sixteen_jobs_at_once_lose_nothing(address, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr(tracker, "LAST_WAIT", 900.0)
    MlflowTracker = tracking.TRACKERS["mlflow"]
    MlflowTracker.load()
    with ThreadPoolExecutor(JOBS) as pool:
        left = list(pool.map(lambda number: job(address, tmp_path, number), range(JOBS)))
    assert {sent for found in left for sent in found.values()} == {0}, left  # nothing was left to be sent
    client = MlflowClient(address)
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    children = [run for run in runs if "stage" in run.data.tags]
    assert len(children) == JOBS == len({run.data.tags["mlflow.parentRunId"] for run in children})
    for run in children:
        number = int(run.data.params["seed"])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == [
            (step, number + step / 100) for step in range(1, STEPS + 1)
        ]
        assert run.info.status == "FINISHED"


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(server, "programs", lambda: None)
    assert "apt-get install postgresql" in server.missing()
    monkeypatch.setattr(server, "programs", lambda: Path("/"))
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert "psycopg2" in server.missing()
