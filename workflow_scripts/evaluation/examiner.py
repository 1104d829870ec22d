"""Models of one version and mode, asked the same questions in the same way, one in memory at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat

if TYPE_CHECKING:
    from workflow_scripts.evaluation.generation import Generator


class Asking(Protocol):
    """How a model is asked: on how many GPUs, how many rows at once, for how many tokens at most."""

    @property
    def gpus(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...


@dataclass(frozen=True)
class Examiner:
    """Loads models, asks them and reads their answers."""

    asking: Asking
    max_image_side: int
    frames: FrameRule
    model_version: str
    mode: str

    @property
    def answer_format(self) -> AnswerFormat:
        """How the models of this version and mode write their answers."""
        return VERSIONS[self.model_version].answer_format(self.mode)

    @contextmanager
    def model(self, path: Path) -> Iterator["Generator"]:
        """The model or adapter at `path`, ready to be asked; its memory is free again afterwards."""
        from workflow_scripts.evaluation.generation import Generator
        from workflow_scripts.models import loading, processors
        from workflow_scripts.models.dialogue import Dialogue

        device, dtype = loading.device_and_dtype(self.asking.gpus)
        processor = processors.load(path, VERSIONS[self.model_version], self.max_image_side, self.frames)
        generator = Generator(
            loading.model(path, dtype, device, device_map="auto" if self.asking.gpus > 1 else None),
            processor,
            Dialogue(processor, self.model_version, self.mode),
            self.asking.batch_size,
            self.asking.max_new_tokens,
        )
        try:
            yield generator
        finally:
            del generator.model
            loading.free_memory()

    def predictions(
        self, generator: "Generator", records: list[Record], folder: Path, stage: str, blank: bool = False
    ) -> list[Prediction]:
        """One row per record: the question, the gold answer, what the model wrote and what was read from it.

        Image paths are relative to `folder`. With `blank`, images are replaced by grey ones.
        """
        answers = generator.answer(records, folder, blank)
        return [
            {
                "id": record["id"],
                "source": record["source"],
                "image_id": record["image_id"],
                "language": record["language"],
                "answer_type": record["answer_type"],
                "question": record["question"],
                "gold": record["answer"],
                "stage": stage,
                "text": generation.text,
                "answer": self.answer_format.read(generation.text),
                "truncated": generation.truncated,
                "image": record["images"][-1] if record["images"] else "",
            }
            for record, (generation,) in zip(records, answers, strict=True)
        ]
