"""TensorBoard: curves and numbers under results/tensorboard/{run}/{stage}."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import flatten


class TensorboardTracker:
    """Curves and numbers under results/tensorboard/{run}/{stage}."""

    def __init__(
        self, settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
    ) -> None:
        # TensorBoard's own writer: torch's would import torch into the stages that have no need of it.
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes it
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.scalar = Event, scalar_pb
        self.writer = EventFileWriter(str(layout.root / "tensorboard" / str(run) / name))
        lines = [f"- {key}: {value}" for key, value in flatten(parameters).items()]
        self._add(0, text_pb("parameters", "\n".join(lines)))

    def _add(self, step: int, summary: Any) -> None:
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))

    def curve(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._add(step, self.scalar(key, value))

    def metrics(self, values: dict[str, float]) -> None:
        self.curve(0, {f"final/{key}": value for key, value in values.items()})

    def artifact(self, path: Path) -> None:
        """TensorBoard keeps no files."""

    def table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        """TensorBoard keeps no tables."""

    def close(self, failed: bool) -> None:
        self.writer.close()
