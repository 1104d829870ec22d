"""Which trackers are configured, whether they answer, how large they are, and what they would be sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from workflow_scripts.base import credentials
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import journal
from workflow_scripts.tracking.experiment import EXPERIMENT
from workflow_scripts.tracking.journal import Journal
from workflow_scripts.tracking.mlflow_store import SECONDS, store, tracking_uri, wait_briefly
from workflow_scripts.tracking.tracker import Outbox
from workflow_scripts.tracking.wandb_runs import is_online


def lines(settings: Config, layout: Layout) -> Iterator[str]:
    """What is to be said, a line each; nothing is sent or made."""
    if not settings.tracking:
        yield "tracking: [] - no tracker is switched on"
        return
    described = {"mlflow": _mlflow, "tensorboard": _tensorboard, "wandb": _wandb}
    for name in settings.tracking:
        yield f"{name}: {described[name](settings, layout) if name in described else 'switched on'}"
        yield f"{name}: {_waiting(layout, name)}"
    what = "are sent too" if settings.tracking_images else "are kept back"
    yield (
        "sent are configuration, versions, numbers, predictions (questions and answers) and logs; "
        f"pictures of the data {what} (tracking_images)"
    )


def _waiting(layout: Layout, name: str) -> str:
    paths = list(journal.all_of(layout))
    counts = [Outbox(Journal(path), name, _never, layout).waiting() for path in paths]
    late = sum(map(bool, counts))
    if not late:
        return f"nothing waits to be sent, of {len(paths)} journal(s) in {layout.journals()}"
    return f"{sum(counts):,} line(s) of {late} journal(s) in {layout.journals()} wait; --sync sends them"


def _never() -> NoReturn:
    raise AssertionError("nothing is sent")


def _mlflow(settings: Config, layout: Layout) -> str:
    uri = tracking_uri(settings, layout)
    shown = credentials.without(uri)
    if uri == f"sqlite:///{store(layout)}" and not store(layout).is_file():
        return f"{shown}, on this machine; not made yet"
    place = "on this machine" if uri.startswith("sqlite:") else "a server"
    size = f", {_size(store(layout), layout.root / 'mlartifacts')}" if place == "on this machine" else ""
    wait_briefly()
    from mlflow import MlflowClient

    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        found = client.search_runs([experiment.experiment_id]) if experiment else []
    except Exception as error:  # whatever a server or a file may be
        text = credentials.hidden(" ".join(str(error).split()))[:200]
        return f"{shown}, {place}; not reachable within {SECONDS} s ({type(error).__name__}: {text})"
    counts = f"{len(found)} run(s)" if experiment else "not there yet"
    return f"{shown}, {place}; reachable; experiment {EXPERIMENT}: {counts}{size}"


def _tensorboard(settings: Config, layout: Layout) -> str:
    folder = layout.root / "tensorboard"
    return f"{folder}, on this machine; {_size(folder)}"


def _wandb(settings: Config, layout: Layout) -> str:
    folder = layout.root / "wandb"
    where = (
        "sent to Weights & Biases (WANDB_API_KEY is set)"
        if is_online()
        else "offline: nothing leaves this machine"
    )
    return f"{folder}, {where}; {_size(folder)}"


def _size(*places: Path) -> str:
    found = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    total = sum(file.lstat().st_size for file in found if file.is_file() and not file.is_symlink())
    return f"{total / 2**20:,.1f} MiB"
