"""A model that a person asks about pictures of their own, in a terminal or on a page."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.base import gpus
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets.records import Message
from workflow_scripts.evaluation import prompting
from workflow_scripts.evaluation.backends import Backend
from workflow_scripts.evaluation.conversation import Conversation, Reply
from workflow_scripts.models import prompt_styles
from workflow_scripts.models.formats import AnswerFormat
from workflow_scripts.models.prompt_styles import AUTO
from workflow_scripts.stages import ask


@dataclass(frozen=True)
class Examined:
    """A model in memory, and how it writes its answers."""

    path: Path
    model: Backend
    form: AnswerFormat

    def conversation(self, images: Sequence[Path], turns: Sequence[Message] = ()) -> Conversation:
        """One about `images`, after `turns`."""
        return Conversation(self.model, self.form, images, list(turns))


@contextmanager
def examined(settings: Config, layout: Layout, run: Run, path: Path, style: str = AUTO) -> Iterator[Examined]:
    """The model or adapter at `path`, of the version and mode of `run`, prompted in `style` or as its files tell."""
    settings.checkpoint(run.model_version, run.mode)
    own = ask.examiner(settings, run.model_version, run.mode, path.resolve().name)
    with gpus.taken(settings.evaluation.gpus):
        processor = own.processor(path)
        if style == AUTO and prompt_styles.is_foreign(path):
            style = prompt_styles.recognised(path).name
        how = prompting.manner(own, path, processor, [], path, layout.kept_answers(), False, style)
        with how.examiner.model(path, processor) as model:
            yield Examined(path, model, own.answer_format)


def in_terminal(
    place: Examined,
    images: Sequence[Path],
    question: str,
    show_thought: bool,
    read: Callable[[str], str] = input,
) -> None:
    """Answer `question` about `images`, and those that follow where somebody is there to ask them."""
    conversation = place.conversation(images)
    if question:
        print(_told(conversation.ask(question), show_thought))
    if not sys.stdin.isatty():
        return
    print("(Further questions about the same pictures; an empty line ends.)")
    with suppress(EOFError):
        while asked := read("> ").strip():
            print(_told(conversation.ask(asked), show_thought))


def _told(reply: Reply, show_thought: bool) -> str:
    notes = [f"{reply.seconds:.1f} s"]
    if reply.thought and not show_thought:
        notes.append("after a thought; --show_thought prints it")
    if reply.truncated:
        notes.append("cut off at evaluation.max_new_tokens")
    elif reply.answer is None:
        notes.append("not in the form that it was trained on")
    thought = f"[thought] {reply.thought}\n" if show_thought and reply.thought else ""
    return f"{thought}{reply.shown.strip()}   ({'; '.join(notes)})"
