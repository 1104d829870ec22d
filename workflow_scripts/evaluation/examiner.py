"""Models of one version and mode, asked the same questions in the same way, one in memory at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.configuration.settings import Config
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat

if TYPE_CHECKING:
    from workflow_scripts.evaluation.generation import Generator


@dataclass(frozen=True)
class Examiner:
    """Loads models, asks them and reads their answers."""

    settings: Config
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

        own = self.settings.evaluation
        device, dtype = loading.device_and_dtype(own.gpus)
        processor = processors.load(path, VERSIONS[self.model_version], self.settings.data.max_image_side)
        generator = Generator(
            loading.model(path, dtype, device, device_map="auto" if own.gpus > 1 else None),
            processor,
            Dialogue(processor, self.model_version, self.mode),
            own.batch_size,
            own.max_new_tokens,
        )
        try:
            yield generator
        finally:
            del generator.model
            loading.free_memory()

    def predictions(
        self, generator: "Generator", records: list[dict], folder: Path, stage: str, blank: bool = False
    ) -> list[dict]:
        """One row per record: the question, the gold answer, what the model wrote and what was read from it.

        Image paths are relative to `folder`. With `blank`, images are replaced by grey ones.
        """
        answers = generator.answer(records, folder, blank)
        keys = ("id", "source", "image_id", "language", "answer_type", "question")
        return [
            {
                **{key: record[key] for key in keys},
                "gold": record["answer"],
                "stage": stage,
                "text": generation.text,
                "answer": self.answer_format.read(generation.text),
                "truncated": generation.truncated,
                "image": record["images"][-1] if record["images"] else "",
            }
            for record, (generation,) in zip(records, answers, strict=True)
        ]
