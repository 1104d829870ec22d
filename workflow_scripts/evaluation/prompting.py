"""How a model is asked and read: as its training was, where that was not ours."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation import asking, questions
from workflow_scripts.evaluation.examiner import Examiner
from workflow_scripts.evaluation.questions import HowAsked
from workflow_scripts.models import prompt_styles
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.prompt_styles import AUTO, OURS, STYLES, PromptStyle

logger = logging.getLogger(__name__)

TRIED_ROWS = 8


@dataclass(frozen=True)
class Manner:
    """Who asks, in the style that the model answers to, and how it is asked and read besides."""

    examiner: Examiner
    instructed: bool
    lenient: bool

    @property
    def told(self) -> HowAsked:
        """The manner as it is recorded."""
        return questions.how_asked(
            self.instructed, self.lenient, self.examiner.style.name, self.examiner.asking.backend
        )

    def read(self, text: str) -> str | None:
        """The answer in what the model wrote."""
        form = self.examiner.answer_format
        return form.read_leniently(text) if self.lenient else form.read(text)

    def put(self, records: Sequence[Record]) -> list[Record]:
        """`records` as the model is asked them."""
        return [questions.instructed(record) for record in records] if self.instructed else list(records)


def manner(
    examiner: Examiner,
    path: Path,
    processor: Processor,
    records: Sequence[Record],
    folder: Path,
    kept: Path,
    untrained: bool,
    style: str = AUTO,
) -> Manner:
    """How the model at `path` is to be asked `records`, whose images are relative to `folder`.

    A model of ours is asked in our style alone. One that was trained elsewhere is asked a few of the records in one
    style after the other, unless `style` names the one; where it never writes the form it is read leniently.
    """
    if examiner.asking.backend == "openai":
        if style not in (AUTO, OURS.name):
            raise UserError(
                f"--prompt_style {style}: a server renders prompts by its own chat template; give it another template, or "
                "take evaluation.backend transformers"
            )
        return Manner(examiner, untrained, untrained)
    if style != AUTO:
        return Manner(replace(examiner, style=STYLES[style]), untrained, untrained)
    if untrained or not records or not prompt_styles.is_foreign(path):
        return Manner(examiner, untrained, untrained)
    return _tried(examiner, path, processor, records, folder, kept)


def _tried(
    examiner: Examiner,
    path: Path,
    processor: Processor,
    records: Sequence[Record],
    folder: Path,
    kept: Path,
) -> Manner:
    """The style in which the model's answers have the form most often; that of its files first, and in a tie."""
    rows = records[:: max(1, len(records) // TRIED_ROWS)][:TRIED_ROWS]
    spoken_for = prompt_styles.recognised(path)
    readable: dict[PromptStyle, int] = {}
    for style in dict.fromkeys((spoken_for, *STYLES.values())):
        found = asking.ask(
            replace(examiner, style=style), path, processor, rows, folder, "original", kept
        ).rows
        form = examiner.answer_format
        readable[style] = sum(not row["truncated"] and form.read(row["text"]) is not None for row in found)
        if readable[style] == len(rows):
            break
    best = max(readable, key=lambda style: readable[style])
    told = ", ".join(f"{style.name} {count}" for style, count in readable.items())
    if readable[best]:
        logger.info(
            "%s: was trained elsewhere, and answers to the prompts of %s (%s); readable of %d: %s",
            path,
            best.name,
            best.meaning,
            len(rows),
            told,
        )
    else:
        logger.warning(
            "%s: was trained elsewhere, and writes our form in no style (readable of %d: %s); asked as %s, read leniently",
            path,
            len(rows),
            told,
            best.name,
        )
    return Manner(replace(examiner, style=best), instructed=False, lenient=not readable[best])
