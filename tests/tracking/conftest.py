import json
import shutil

import pytest

from workflow_scripts import tracking
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import EXPERIMENT


@pytest.fixture(scope="session")
def new_store(tmp_path_factory):
    """An MLflow store that is just made, which takes long; its copies are re-addressed like moved ones."""
    layout = Layout(tmp_path_factory.mktemp("store"))
    tracking.prepare(Config(), layout)
    return layout.root / "mlflow.db"


@pytest.fixture(autouse=True)
def own_folder_of_wandb(monkeypatch):
    """The tracker names one to the whole process."""
    monkeypatch.setenv("WANDB_DATA_DIR", "")
    monkeypatch.delenv("WANDB_DATA_DIR")


@pytest.fixture
def run():
    return Run("slake", "4.1v", "thinking")


@pytest.fixture
def layout(tmp_path, new_store):
    root = tmp_path / "results"
    for folder in (root / "raw" / "slake", root / "models" / "4.1v_thinking"):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"fingerprint": folder.name, "files": {}}))
    shutil.copy(new_store, root / "mlflow.db")
    return Layout(root)


@pytest.fixture
def seen(layout):
    """What MLflow has: (client, parents, children), the newest first."""
    from mlflow import MlflowClient

    def look(at=layout):
        client = MlflowClient(f"sqlite:///{at.root / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        parents = [found for found in runs if found.data.tags.get("level") == "run"]
        return client, parents, [found for found in runs if "stage" in found.data.tags]

    return look
