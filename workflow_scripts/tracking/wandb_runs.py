"""Weights & Biases: one run per stage, grouped by run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import EXPERIMENT, git_commit


class WandbTracker:
    """One W&B run per stage, grouped by run; offline unless the user is logged in."""

    def __init__(
        self, settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
    ) -> None:
        import wandb

        self.wandb = wandb
        folder = layout.root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        online = os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline"
        self.run = wandb.init(
            project=EXPERIMENT,
            group=str(run),
            job_type=name,
            name=f"{run} {name}",
            config={**parameters, "git_commit": git_commit()},
            dir=str(folder),
            mode="online" if online else "offline",
            settings=wandb.Settings(silent=True),
        )

    def curve(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def metrics(self, values: dict[str, float]) -> None:
        self.run.summary.update(values)

    def artifact(self, path: Path) -> None:
        self.run.save(str(path), base_path=str(path.parent), policy="now")

    def table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        columns = list(rows[0]) if rows else []
        self.run.log(
            {name: self.wandb.Table(columns=[*columns], data=[[row[key] for key in columns] for row in rows])}
        )

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))
