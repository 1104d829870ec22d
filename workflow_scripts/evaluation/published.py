"""Results in print, and which of them may stand beside ours: those of the same protocol and the same test split."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field

from workflow_scripts.base.files import read_yaml
from workflow_scripts.evaluation.matching import AskedQuestion

FILE = Path(__file__).with_name("published.yaml")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Split(_Entry):
    """A test split by what tells it; one without `questions` has others than our readers give."""

    reader: str
    languages: list[str]
    questions: int | None = None
    closed: int | None = None


class Results(_Entry):
    """Numbers of one source: in per cent, by split, model and the protocol's name of the number.

    `judge` is the beginning of the judge's name, where a judge has made them.
    """

    protocol: str
    source: str = Field(min_length=1)
    judge: str = ""
    note: str = ""
    numbers: dict[str, dict[str, dict[str, float]]]


class Table(_Entry):
    """The whole of published.yaml."""

    splits: dict[str, Split]
    results: list[Results]


class Published(TypedDict):
    """A model's numbers in print, in per cent by the protocol's names, and where they stand."""

    model: str
    numbers: dict[str, float]
    split: str
    source: str
    note: str


@cache
def table() -> Table:
    """The results in print."""
    return Table.model_validate(read_yaml(FILE))


def beside(
    protocol: str, reader: str, questions: Sequence[AskedQuestion], judge: str = ""
) -> Iterator[Published]:
    """What print has by `protocol` on the split whose questions are these, all of them; `judge` is the judge's model."""
    for results in table().results:
        if results.protocol == protocol and judge.startswith(results.judge):
            for split, models in results.numbers.items():
                if _is(table().splits[split], reader, questions):
                    for model, numbers in models.items():
                        yield {
                            "model": model,
                            "numbers": numbers,
                            "split": split,
                            "source": results.source,
                            "note": results.note,
                        }


def _is(split: Split, reader: str, questions: Sequence[AskedQuestion]) -> bool:
    closed = sum(question["answer_type"] == "closed" for question in questions)
    return (
        split.reader == reader
        and set(split.languages) == {question["language"] for question in questions}
        and split.questions == len(questions)
        and split.closed in (None, closed)
    )
