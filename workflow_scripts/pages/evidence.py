"""The questions behind a run's numbers, as the data that its page filters: each text once, in columns, compressed.

In two parts: what the list shows and filters by, a tenth of the whole; and the rest, such as raw texts and reasons, which
the page unpacks when it is first looked at.
"""

import base64
import gzip
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from workflow_scripts.datasets.records import image_key
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.analysis import Lines, Verdicts
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.statistics.breakdown import GROUPINGS, NOT_STATED, is_empty
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
    """Both parts as base64 of gzipped JSON, and to how many characters raw texts were cut; None if they are whole."""

    questions: str
    texts: str
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
    shown = {line: label for line, label in labels.items() if line in lines}
    questions = _packed(_questions(lines, verdicts, shown, clusters, leaked, pictures))
    limits = iter(TEXT_LIMITS)
    limit, texts = None, _packed(_texts(lines, verdicts, shown, None))
    while len(questions) + len(texts) > budget and (shorter := next(limits, None)):
        limit, texts = shorter, _packed(_texts(lines, verdicts, shown, shorter))
    return Packed(questions, texts, limit)


def _packed(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def _questions(
    lines: Lines,
    verdicts: Verdicts,
    shown: Mapping[str, str],
    clusters: Sequence[int],
    leaked: Collection[str] | None,
    pictures: Sequence[str],
) -> dict[str, Any]:
    """What the list shows and filters by."""
    strings = _Strings()
    places = {name: place for place, name in enumerate(pictures)}
    rows = next(iter(lines.values()))
    return {
        "lines": dict(shown),
        "protocols": list(next(iter(verdicts.values()))),
        "numbers": {name: _numbers(found) for name, found in next(iter(verdicts.values())).items()},
        "facets": _facets(rows, leaked),
        "fields": {field: [strings(str(dict(row)[field])) for row in rows] for field in _FIELDS},
        "cluster": list(map(int, clusters)),
        "answers": {
            line: {
                "answer": [-1 if row["answer"] is None else strings(row["answer"]) for row in lines[line]],
                "picture": [places.get(row["image"], -1) for row in lines[line]],
                "truncated": _places(row["truncated"] for row in lines[line]),
                "repeated": _places(row["repeated"] for row in lines[line]),
                "forced": _places(row["forced"] for row in lines[line]),
                "empty": _places(is_empty(row) for row in lines[line]),
                "scores": {name: list(map(_score, found)) for name, found in verdicts[line].items()},
            }
            for line in shown
        },
        "strings": strings.all,
    }


def _texts(lines: Lines, verdicts: Verdicts, shown: Collection[str], limit: int | None) -> dict[str, Any]:
    """What an opened question shows besides: raw texts, their cost, each protocol's reason and its own numbers."""
    strings = _Strings()
    return {
        "answers": {
            line: {
                "text": [strings(_cut(row["text"], limit)) for row in lines[line]],
                "why": {
                    name: [strings(verdict.why) for verdict in found]
                    for name, found in verdicts[line].items()
                },
                "numbers": {
                    name: {
                        number: [_plain(verdict.scores.get(number)) for verdict in found]
                        for number in _numbers(found)
                    }
                    for name, found in verdicts[line].items()
                },
                "tokens": [row["tokens"] for row in lines[line]],
                "seconds": [round(row["seconds"], 3) for row in lines[line]],
                "words": [
                    None if row["answer"] is None else len(tokens(row["answer"])) for row in lines[line]
                ],
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


def _numbers(found: Sequence[Verdict]) -> list[str]:
    """The names of a protocol's own numbers."""
    return sorted({name for verdict in found for name in verdict.scores})


def _score(verdict: Verdict) -> float | str:
    """A score, and a note in the place of one that is None."""
    found = _plain(verdict.score)
    return verdict.note if found is None else found


def _plain(score: float | None) -> float | None:
    """`score` as JSON writes it in few characters."""
    return score if score is None else int(score) if score == int(score) else round(score, 4)


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    end = limit // 3  # of which the answer is a part
    return f"{text[: limit - end]} […] {text[-end:]}"
