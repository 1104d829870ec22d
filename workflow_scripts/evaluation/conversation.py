"""A person's questions about some pictures, one after the other, each with the turns before it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.images import open_image
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Message, Record
from workflow_scripts.evaluation.backends import Backend
from workflow_scripts.models.formats import AnswerFormat, escape


@dataclass(frozen=True)
class Reply:
    """`answer` is None where the text has not the form that the model was trained on; `thought` is "" without one."""

    text: str
    thought: str
    answer: str | None
    truncated: bool
    seconds: float

    @property
    def shown(self) -> str:
        """The answer, or else what the model wrote."""
        return self.text if self.answer is None else self.answer


@dataclass
class Conversation:
    """`images` are shown with the first question; a UserError where one cannot be read."""

    model: Backend
    form: AnswerFormat
    images: Sequence[Path]
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in self.images:
            if not path.is_file():
                raise UserError(f"{path}: no such picture")
            open_image(path)

    def ask(self, question: str) -> Reply:
        """The model's reply, which later questions follow."""
        messages = [*self.messages, self._turn(question)]
        reply = self._reply(messages, blank=False)
        self.messages = [*messages, {"role": "assistant", "content": reply.text}]
        return reply

    def ask_blank(self, question: str) -> Reply:
        """What the model replies where grey pictures stand for `images`; no later question follows it."""
        return self._reply([*self.messages, self._turn(question)], blank=True)

    def _turn(self, question: str) -> Message:
        shown = "" if self.messages else IMAGE_PLACEHOLDER * len(self.images)
        return {"role": "user", "content": shown + escape(question.strip())}

    def _reply(self, messages: list[Message], blank: bool) -> Reply:
        record: Record = {  # type: ignore[typeddict-item]  # what a test question has besides
            "id": str(len(messages)),
            "images": [str(path.resolve()) for path in self.images],
            "messages": messages,
        }
        begun = time.perf_counter()
        ((_, (found,)),) = self.model.stream([record], Path("/"), blank)
        parsed = self.form.parse(found.text)
        return Reply(
            text=found.text,
            thought=parsed[0] if parsed else "",
            answer=parsed[1] if parsed else None,
            truncated=found.truncated,
            seconds=time.perf_counter() - begun,
        )
