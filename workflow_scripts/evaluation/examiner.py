"""Models of one version and mode, asked the same questions in the same way, one in memory at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.polarity import is_yes_or_no
from workflow_scripts.datasets.records import Message, Record
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat

if TYPE_CHECKING:
    from workflow_scripts.evaluation.generation.generator import Generator


# What an untrained model is told after the question, by language: (any question, a question whose answer is yes or
# no). MedEvalKit asks for the same, and like it tells the two apart by the gold answer. A Base model is no dialogue
# model: it continues the same prompt, and the first line that it writes is its answer.
INSTRUCTIONS = {
    "en": ("Answer with a single word or phrase.", "Answer with yes or no only."),
    "zh": ("请用一个词或短语回答。", "请只回答是或否。"),
}


class Asked(TypedDict):
    """How a model was asked: by the bare question or with an instruction, and read by its form or leniently."""

    instruction: dict[str, list[str]] | None
    reading: str


def asked(untrained: bool) -> Asked:
    """How a model is asked that is `untrained` on the project's form, or trained on it."""
    if untrained:
        return {
            "instruction": {language: list(both) for language, both in INSTRUCTIONS.items()},
            "reading": "lenient",
        }
    return {"instruction": None, "reading": "by the trained form"}


def instructed(record: Record) -> Record:
    """`record` with the instruction of its language on a line of its own after its last question."""
    open_question, yes_or_no = INSTRUCTIONS.get(record["language"], INSTRUCTIONS["en"])
    instruction = yes_or_no if is_yes_or_no(record["answer"]) else open_question
    messages = record["messages"]
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    last: Message = {"role": "user", "content": f"{messages[-1]['content']}\n{instruction}"}
    return {**record, "messages": [*messages[:-1], last]}


class Asking(Protocol):
    """How a model is asked: on how many GPUs, how many tokens at once, for how many tokens at most."""

    @property
    def gpus(self) -> int: ...
    @property
    def tokens_per_batch(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def thought_budget(self) -> int | None: ...


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
        from workflow_scripts.evaluation.generation.generator import Generator
        from workflow_scripts.models import loading, processors
        from workflow_scripts.models.dialogue import Dialogue

        device, dtype = loading.device_and_dtype(self.asking.gpus)
        processor = processors.load(path, VERSIONS[self.model_version], self.max_image_side, self.frames)
        generator = Generator(
            loading.model(path, dtype, device, device_map="auto" if self.asking.gpus > 1 else None),
            processor,
            Dialogue(processor, self.model_version, self.mode),
            self.asking.tokens_per_batch,
            self.asking.max_new_tokens,
            self.asking.thought_budget,
        )
        try:
            yield generator
        finally:
            del generator.model
            loading.free_memory()

    def predictions(
        self,
        generator: "Generator",
        records: list[Record],
        folder: Path,
        stage: str,
        blank: bool = False,
        untrained: bool = False,
    ) -> list[Prediction]:
        """One row per record: the question, the gold answer, what the model wrote and what was read from it.

        Image paths are relative to `folder`. With `blank`, images are replaced by grey ones. A model that is `untrained`
        gets an instruction after the question, and is read leniently.
        """
        answers = generator.answer(
            [instructed(record) for record in records] if untrained else records, folder, blank
        )
        read = self.answer_format.read_leniently if untrained else self.answer_format.read
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
                "answer": read(generation.text),
                "truncated": generation.truncated,
                "image": record["images"][-1] if record["images"] else "",
            }
            for record, (generation,) in zip(records, answers, strict=True)
        ]
