"""Where MLflow keeps our experiment: a server, or a store under results/ that may be moved with them."""

import fcntl
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import mlflow_view
from workflow_scripts.tracking.experiment import EXPERIMENT

logger = logging.getLogger(__name__)

SECONDS = 10

# Of MLflow 3.17's store: what holds an absolute address below the experiment's.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# "Machine learning" instead of MLflow's view of traces; and what the list of experiments says of ours.
_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    mlflow_view.TAG: mlflow_view.state(),
    "mlflow.note.content": "A run of the chain is a row; its stages are below it. The row's description has the table of results; "
    "`docs/tracking.md` says what the columns mean.",
}


def store(layout: Layout) -> Path:
    """The store under results/."""
    return layout.root / "mlflow.db"


def tracking_uri(settings: Config, layout: Layout) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else the store under results/."""
    return settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store(layout)}"


def wait_briefly() -> None:
    """Give a server up that does not answer within SECONDS, instead of MLflow's minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))


def prepare_store(uri: str, layout: Layout) -> str:
    """The id of our experiment at `uri`, made where it is not there, and restored where somebody deleted it.

    A lock lets one process at a time create the store's tables: MLflow's own creation fails when two race.
    """
    wait_briefly()
    from mlflow import MlflowClient
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    layout.root.mkdir(parents=True, exist_ok=True)
    local = uri.startswith("sqlite:")
    location = (layout.root / "mlartifacts").resolve().as_uri() if local else None
    with open(layout.root / ".mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if location and uri == f"sqlite:///{store(layout)}":
            readdress(store(layout), location)
        client = MlflowClient(uri)
        existing = client.get_experiment_by_name(EXPERIMENT)
        if existing:
            known: str = existing.experiment_id
            if existing.lifecycle_stage == LifecycleStage.DELETED:  # its name is taken all the same
                client.restore_experiment(known)
                logger.warning("experiment %s was deleted in MLflow; restored, with its runs", EXPERIMENT)
            for key, value in _TAGS.items():
                if existing.tags.get(key) != value and (key == mlflow_view.TAG or key not in existing.tags):
                    client.set_experiment_tag(known, key, value)
            return known
        try:
            created: str = client.create_experiment(EXPERIMENT, artifact_location=location, tags=_TAGS)
        except MlflowException:  # of a server, whose other clients share no lock with us
            made = client.get_experiment_by_name(EXPERIMENT)
            if made is None:
                raise
            created = made.experiment_id
        return created


def readdress(database: Path, location: str) -> None:
    """Let the addresses in a store that was moved with its results begin with `location`: MLflow keeps absolute ones."""
    if not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if "experiments" not in tables:
            return
        found = connection.execute(
            "SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)
        ).fetchone()
        if not found or found[0] == location:
            return
        before = found[0]
        for table, column in _ADDRESSES:
            if table in tables:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (location, len(before) + 1, len(before), before),
                )
    logger.info("%s: moved here from %s", database, before)
