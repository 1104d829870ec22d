"""Answer files of this project, LLaVA-Med, MedEvalKit, lmms-eval and VLMEvalKit, told apart by the keys of their rows."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from workflow_scripts.base import files, text_files
from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.datasets.readers import sheets

Row = Mapping[str, Any]
TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class GivenAnswer:
    """What was written to a question, and what its file says of that question; "" for what it does not say.

    `question` may be the whole prompt. `answer` is what was read from `text` where the file `states_answer`, None for
    nothing. `group` tells apart the models, or the stages, of a file.
    """

    text: str
    id: str = ""
    source: str = ""
    question: str = ""
    image: str = ""
    gold: str = ""
    split: str = ""
    group: str = ""
    truncated: bool = False
    states_answer: bool = False
    answer: str | None = None
    where: str = ""


class AnswerFile(NamedTuple):
    """The answers of a file, and whose layout it has."""

    layout: str
    answers: list[GivenAnswer]


def read(path: Path) -> AnswerFile:
    """The answers in `path`; a file or a row of no known layout is a UserError."""
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path}: no answers in it")
    layout = next((name for name, (keys, _) in _LAYOUTS.items() if rows[0][1].keys() >= set(keys)), None)
    if layout is None:
        known = "; ".join(f"{name}: {', '.join(keys)}" for name, (keys, _) in _LAYOUTS.items())
        raise UserError(f"{path}: its rows have the keys of no known layout ({known})")
    keys, given = _LAYOUTS[layout]
    answers = []
    for number, row in rows:
        if lacking := set(keys) - row.keys():
            raise UserError(
                f"{path}: row {number}: no {sorted(lacking)[0]!r}, which {layout} writes; correct the row"
            )
        answers.append(given(row, f"row {number}"))
    return AnswerFile(layout, answers)


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        yield from enumerate(sheets.xlsx(path), start=1)
    elif suffix in TABLES:
        with text_files.opened(path, newline="") as file:
            try:
                yield from enumerate(csv.DictReader(file, delimiter=TABLES[suffix]), start=1)
            except csv.Error as error:
                raise UserError(f"{path}: not a readable table ({brief(error)})") from None
    else:
        for number, row in files.json_values(path):
            if not isinstance(row, dict):
                raise UserError(f"{path}: row {number}: not a JSON object; correct the row")
            yield number, row


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)


def _first(value: Any) -> str:
    """The first text of lists within lists."""
    while isinstance(value, list):
        value = value[0] if value else ""
    return "" if value is None else str(value)


def _ours(row: Row, where: str) -> GivenAnswer:
    """A line of predictions.jsonl, or of results/answers/, which leaves reading to the reader."""
    return GivenAnswer(
        text=_text(row, "text"),
        id=_text(row, "id"),
        source=_text(row, "source"),
        question=_text(row, "question"),
        image=_text(row, "image_id"),
        split=_text(row, "split"),
        group=_text(row, "stage"),
        truncated=row.get("truncated") is True,
        states_answer="answer" in row,
        answer=None if row.get("answer") is None else str(row["answer"]),
        where=where,
    )


def _llava_med(row: Row, where: str) -> GivenAnswer:
    """A line of llava/eval/model_vqa.py; the question's id is of the question file that was asked."""
    return GivenAnswer(
        text=_text(row, "text"),
        id=_text(row, "question_id"),
        question=_text(row, "prompt"),
        image=_text(row, "image"),
        where=where,
    )


def _medevalkit(row: Row, where: str) -> GivenAnswer:
    """An element of results.json, which has neither id nor image."""
    return GivenAnswer(
        text=_text(row, "response"), question=_text(row, "question"), gold=_text(row, "answer"), where=where
    )


def _lmms_eval(row: Row, where: str) -> GivenAnswer:
    """A line of *_samples_*.jsonl: `resps` is there where filters changed it; a metric may tell the question's id."""
    metrics = (
        value for value in row.values() if isinstance(value, dict) and value.keys() >= {"id", "target"}
    )
    filtered = _first(row["filtered_resps"])
    return GivenAnswer(
        text=_first(row["resps"]) if "resps" in row else filtered,
        id=_text(next(metrics, {}), "id"),
        question=_first(row.get("input")),
        gold=_text(row, "target"),
        states_answer="resps" in row,
        answer=filtered,
        where=where,
    )


def _vlmevalkit(row: Row, where: str) -> GivenAnswer:
    """A row of {model}_{dataset}.xlsx; its index is the place in a table of its own, and no id."""
    return GivenAnswer(
        text=_text(row, "prediction"),
        question=_text(row, "question"),
        image=_text(row, "image_path"),
        gold=_text(row, "answer"),
        where=where,
    )


_LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Row, str], GivenAnswer]]] = {
    "VLMEvalKit": (("index", "question", "prediction"), _vlmevalkit),
    "MedEvalKit": (("question", "answer", "response"), _medevalkit),
    "lmms-eval": (("doc_id", "target", "filtered_resps"), _lmms_eval),
    "LLaVA-Med": (("question_id", "text"), _llava_med),
    "this project": (("id", "text"), _ours),
}
