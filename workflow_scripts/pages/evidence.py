"""The questions behind a run's numbers, as the data that its page filters: each text once, in columns, compressed."""

import base64
import gzip
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from workflow_scripts.datasets.records import image_key
from workflow_scripts.evaluation.analysis import Lines, Verdicts
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.statistics.breakdown import GROUPINGS, NOT_STATED
from workflow_scripts.evaluation.verdicts import Verdict

BUDGET = 10_000_000  # characters that the packed data of a page may take
TEXT_LIMITS = (
    8000,
    4000,
    2000,
    1000,
    500,
    250,
    100,
)  # characters of a raw text, where all of them do not fit
_FIELDS = ("id", "source", "language", "question", "gold", "image_id", "linked_id", "organ", "modality")
LEAK = {True: "leaked", False: "free"}


class Packed(NamedTuple):
    """The data as base64 of gzipped JSON, and to how many characters raw texts were cut; None if they are whole."""

    data: str
    text_limit: int | None


class _Strings:
    """Texts by number, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


def pack(
    lines: Lines,
    verdicts: Verdicts,
    labels: Mapping[str, str],
    clusters: Sequence[int],
    leaked: Collection[str] | None,
    pictures: Sequence[str],
    budget: int = BUDGET,
) -> Packed:
    """The predictions of all lines of one set of questions and what each protocol says of them.

    `labels` name the lines and say their order; `pictures` are the names of those that the page has, by number. Raw
    texts are cut in their middle where the whole would be over `budget`.
    """
    packed = Packed(_packed(_data(lines, verdicts, labels, clusters, leaked, pictures, None)), None)
    for limit in TEXT_LIMITS:
        if len(packed.data) <= budget:
            break
        packed = Packed(_packed(_data(lines, verdicts, labels, clusters, leaked, pictures, limit)), limit)
    return packed


def _packed(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def _data(
    lines: Lines,
    verdicts: Verdicts,
    labels: Mapping[str, str],
    clusters: Sequence[int],
    leaked: Collection[str] | None,
    pictures: Sequence[str],
    limit: int | None,
) -> dict[str, Any]:
    strings = _Strings()
    places = {name: place for place, name in enumerate(pictures)}
    shown = {line: label for line, label in labels.items() if line in lines}
    rows = next(iter(lines.values()))
    return {
        "lines": shown,
        "protocols": list(next(iter(verdicts.values()))),
        "facets": _facets(rows, leaked),
        "fields": {field: [strings(str(dict(row)[field])) for row in rows] for field in _FIELDS},
        "cluster": list(map(int, clusters)),
        "answers": {
            line: {
                "text": [strings(_cut(row["text"], limit)) for row in lines[line]],
                "answer": [-1 if row["answer"] is None else strings(row["answer"]) for row in lines[line]],
                "picture": [places.get(row["image"], -1) for row in lines[line]],
                "truncated": _places(row["truncated"] for row in lines[line]),
                "repeated": _places(row["repeated"] for row in lines[line]),
                "forced": _places(row["forced"] for row in lines[line]),
                "tokens": [row["tokens"] for row in lines[line]],
                "verdicts": {name: _columns(found, strings) for name, found in verdicts[line].items()},
            }
            for line in shown
        },
        "strings": strings.all,
    }


def _facets(rows: Sequence[Prediction], leaked: Collection[str] | None) -> dict[str, dict[str, list[Any]]]:
    """The groups that questions can be filtered by, named as in the breakdowns, and the group of each row."""
    found = {
        name: [of(row) or NOT_STATED for row in rows] for name, of in GROUPINGS.items() if name != "overall"
    }
    if leaked is not None:
        found["leak"] = [LEAK[image_key(row["source"], row["image_id"]) in leaked] for row in rows]
    facets: dict[str, dict[str, list[Any]]] = {}
    for name, values in found.items():
        names = sorted(set(values))
        numbers = {group: number for number, group in enumerate(names)}
        facets[name] = {"names": names, "of": [numbers[value] for value in values]}
    return facets


def _places(flags: Any) -> list[int]:
    return [place for place, flag in enumerate(flags) if flag]


def _columns(found: Sequence[Verdict], strings: _Strings) -> dict[str, list[Any]]:
    """Scores (a note in the place of one that is None) and why, by row."""
    return {
        "score": [verdict.note if verdict.score is None else round(verdict.score, 4) for verdict in found],
        "why": [strings(verdict.why) for verdict in found],
    }


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    end = limit // 3  # of which the answer is a part
    return f"{text[: limit - end]} […] {text[-end:]}"
