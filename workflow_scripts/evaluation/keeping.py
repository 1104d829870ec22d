"""What was asked for once and is never asked for again, however often a job is killed: answers, and a judge's verdicts.

A JSONL for each process that asks: a line for each reply, known by its key and appended as it comes. A line carries its
checksum, so that what a kill, a full disk or a bad one has torn is told from what is whole.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError

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


def read(paths: Iterable[Path]) -> dict[str, Any]:
    """The whole lines of these files by key; nobody else may write them meanwhile.

    Damaged lines are counted in a warning, and removed: what they held is asked for again.
    """
    found: dict[str, Any] = {}
    for path in sorted(filter(Path.is_file, paths)):
        rows, damaged = _read(path)
        found |= {row["key"]: row for row in rows}
        if damaged:
            logger.warning("%s: %d damaged line(s); what they held is asked for again", path, damaged)
            with files.replacing(path) as temporary:
                temporary.write_bytes(b"".join(map(_line, rows)))
    return found


@contextmanager
def appending(path: Path) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """Yield what appends a row that has a "key" to `path`, whose only writer the caller is.

    A UserError where the disk takes no more, which leaves the lines before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: the system has a line in one call, and keeps it when the process is killed.
    with open(path, "ab", buffering=0) as file:

        def append(row: Mapping[str, Any]) -> None:
            whole, line = os.fstat(file.fileno()).st_size, _line(row)
            try:
                while line:  # of a line that hardly fits, the system may take a part
                    line = line[file.write(line) :]
            except OSError as error:
                with suppress(OSError):
                    file.truncate(whole)
                raise UserError(
                    f"{path}: cannot be written ({error.strerror}); make room and start again: what came before is kept"
                ) from error

        yield append


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps({**row, "checksum": _checksum(row)}, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _checksum(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:8]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole rows of a file, and how many lines are damaged."""
    rows: list[dict[str, Any]] = []
    *lines, torn = path.read_bytes().split(b"\n")
    damaged = int(bool(torn))  # a last line without its end, even where it reads well
    for line in lines:
        try:
            row = json.loads(line)
            whole = row.pop("checksum") == _checksum(row) and "key" in row
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            whole = False
        if whole:
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged
