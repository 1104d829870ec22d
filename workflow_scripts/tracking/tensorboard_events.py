"""TensorBoard: curves and numbers under results/tensorboard/{run}/{configuration}/{stage}."""

import shutil
from pathlib import Path
from typing import Any

from workflow_scripts.tracking.journal import StageStart
from workflow_scripts.tracking.tracker import Tracker


class TensorboardTracker(Tracker):
    """Curves and numbers; an attempt that starts over takes the place of the one before."""

    writer: Any

    @classmethod
    def load(cls) -> None:
        import tensorboard.plugins.scalar.summary_v2
        import tensorboard.plugins.text.summary_v2
        import tensorboard.summary.writer.event_file_writer  # noqa: F401

    def open(self, start: StageStart, fresh: bool) -> None:
        # TensorBoard's own writer: torch's would import torch into the stages that have no need of it.
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes it
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.scalar = Event, scalar_pb
        folder = self._folder(start)
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        self.writer = EventFileWriter(str(folder))
        if fresh:
            lines = [f"- {key}: {value}" for key, value in start.parameters.items()]
            self._add(0, text_pb("parameters", "\n".join(lines)), start.time)

    def knows(self, start: StageStart) -> bool:
        return self._folder(start).is_dir()

    def _folder(self, start: StageStart) -> Path:
        return self.layout.root / "tensorboard" / str(start.run) / start.configuration / start.stage

    def _add(self, step: int, summary: Any, time: int) -> None:
        self.writer.add_event(self.event(wall_time=time / 1000, step=step, summary=summary))
        self.writer.flush()  # before it counts as sent

    def curve(self, step: int, values: dict[str, float], time: int) -> None:
        for key, value in values.items():
            self._add(step, self.scalar(key, value), time)

    def metrics(self, values: dict[str, float], time: int) -> None:
        self.curve(0, values, time)

    def close(self, status: str, reason: str, time: int) -> None:
        self.writer.close()
