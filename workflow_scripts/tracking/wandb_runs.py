"""Weights & Biases: one run per attempt of a stage, grouped by run and configuration."""

import os
from pathlib import Path
from typing import Any

from workflow_scripts.tracking import question_sample, surroundings
from workflow_scripts.tracking.experiment import EXPERIMENT
from workflow_scripts.tracking.journal import StageStart
from workflow_scripts.tracking.tracker import Tracker


def is_online() -> bool:
    """Whether anything leaves this machine: where the user has a key and has not said otherwise."""
    return bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE") != "offline"


class WandbTracker(Tracker):
    """Offline unless the user is logged in; an attempt keeps its id, by which W&B joins its parts."""

    run: Any = None

    @classmethod
    def load(cls) -> None:
        import wandb  # noqa: F401

    @property
    def destination(self) -> str:
        return "online" if is_online() else "offline"

    def open(self, start: StageStart, fresh: bool) -> None:
        import wandb

        self.wandb = wandb
        if self.run is not None:
            self.run.finish()
        folder = self.layout.root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        # For pictures of tables, which would come into the user's home.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.absolute()))
        self.run = wandb.init(
            project=EXPERIMENT,
            id=start.attempt,
            group=f"{start.run} {start.configuration}",
            job_type=start.stage,
            name=f"{start.run} {start.stage}",
            config={
                **start.parameters,
                **{key: start.about[key] for key in ("git_commit", "manifests", *surroundings.ENVIRONMENT)},
            },
            dir=str(folder),
            mode="online" if is_online() else "offline",
            settings=wandb.Settings(silent=True),
            # Offline, `wandb sync --append` joins the parts.
            resume="allow" if is_online() and not fresh else None,
        )

    def curve(self, step: int, values: dict[str, float], time: int) -> None:
        self.run.log(values, step=step)

    def metrics(self, values: dict[str, float], time: int) -> None:
        self.run.summary.update(values)

    def artifact(self, path: Path, folder: str) -> None:
        self.run.save(str(path), base_path=str(path.parent), policy="now")

    def table(self, path: Path, name: str) -> None:
        rows = question_sample.rows(path, self.settings, self.wandb.Image)
        columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(str(key)) for key in columns] for row in rows]
        self.run.log({name: self.wandb.Table(columns=columns, data=data)})

    def close(self, status: str, reason: str, time: int) -> None:
        self.run.finish(exit_code=int(status != "FINISHED"))
        self.run = None
