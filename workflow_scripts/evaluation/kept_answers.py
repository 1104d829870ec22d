"""Answers that were generated once and are never asked for again, however often a job is killed.

A folder for each way of asking, in it a JSONL for each process that asks: a line an answer, appended as it comes. A
line carries its checksum, so that what a kill or a bad disk has torn is told from what is whole.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from workflow_scripts.base import files

logger = logging.getLogger(__name__)


class KeptAnswer(TypedDict):
    """What a model wrote to a question, known by the `key` of its prompt and images; `seconds` of asking it."""

    key: str
    text: str
    truncated: bool
    forced: bool
    repeated: bool
    tokens: int
    seconds: float


def read(folder: Path) -> dict[str, KeptAnswer]:
    """The whole answers of all files in `folder`, by key; damaged lines are counted in a warning, and left out."""
    found: dict[str, KeptAnswer] = {}
    for path in sorted(folder.glob("*.jsonl")):
        answers, damaged = _read(path)
        found |= {answer["key"]: answer for answer in answers}
        if damaged:
            logger.warning("%s: %d damaged line(s); these questions are asked again", path, damaged)
    return found


@contextmanager
def appending(path: Path) -> Iterator[Callable[[KeptAnswer], object]]:
    """Yield what appends an answer to `path`, whose only writer the caller is. Damaged lines there are removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        answers, damaged = _read(path)
        if damaged:
            files.write_text(path, "".join(map(_line, answers)))
    # Unbuffered: the system has a line in one call, and keeps it when the process is killed.
    with open(path, "ab", buffering=0) as file:
        yield lambda answer: file.write(_line(answer).encode())


def _line(answer: KeptAnswer) -> str:
    return json.dumps({**answer, "checksum": _checksum(answer)}) + "\n"


def _checksum(answer: KeptAnswer) -> str:
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:8]


def _read(path: Path) -> tuple[list[KeptAnswer], int]:
    """The whole answers of a file, and how many lines are damaged."""
    answers: list[KeptAnswer] = []
    *lines, torn = path.read_bytes().split(b"\n")
    damaged = int(bool(torn))  # a last line without its end, even where it reads well
    for line in lines:
        try:
            answer = json.loads(line)
            whole = answer.pop("checksum") == _checksum(answer)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            whole = False
        if whole:
            answers.append(answer)
        else:
            damaged += 1
    return answers, damaged
