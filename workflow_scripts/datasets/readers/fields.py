"""The fields of a raw row, and errors that say where a bad one is."""

import re
from collections.abc import Callable
from typing import Any, TypedDict

from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.polarity import is_yes_or_no

Row = dict[str, Any]  # a raw row: keys with whatever the file holds


class Said(TypedDict):
    """The fields of an Example that its dialogue decides; `stated` has what tidying changed, as it was."""

    question: str
    answer: str
    stated: dict[str, str]


def objects(rows: object, path: object) -> list[Row]:
    """`rows` if it is a list of dictionaries, else a UserError."""
    if not isinstance(rows, list):
        raise UserError(f"{path}: a list of rows is expected, not {type(rows).__name__}; fetch it again")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is not an object with keys; fetch the file again")
    return rows


def tidy(text: str) -> str:
    """`text` with white space of every kind (tabs, U+2003, U+3000, ends of lines) as single spaces, none around."""
    return " ".join(text.split())


def lines(text: str) -> str:
    """The same line by line: line breaks stay, of several one."""
    return "\n".join(filter(None, map(tidy, re.split(r"[\n\r\u2028\u2029]", text))))


def verbatim(row: Row, key: str, where: str) -> str:
    """A required field as it stands; a whole number counts as text, anything else is a UserError."""
    if key not in row:
        raise UserError(f"{where} has no key '{key}'; is this the set's original file?")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(
            f"{where}: '{key}' is {shown(value)}, not text; correct the row or fetch the file again"
        )
    if not (stated := str(value)).isascii():
        try:
            stated.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: '{key}' is {ascii(stated)[:100]}, with half a character; correct the row"
            ) from None
    return stated


def text(row: Row, key: str, where: str) -> str:
    """The same, tidied."""
    return tidy(verbatim(row, key, where))


def optional(row: Row, key: str, where: str) -> str:
    """The same for a field that may be absent, None or 'NULL', all of which give ""."""
    if row.get(key) is None:
        return ""
    value = text(row, key, where)
    return "" if value == "NULL" else value


def dialogue(question: str, answer: str, tidy: Callable[[str], str] = tidy) -> Said:
    """The fields `question` and `answer` of an Example, tidied, and `stated`: those that tidying changed."""
    stated = {"question": question, "answer": answer}
    tidied = {field: tidy(value) for field, value in stated.items()}
    changed = {field: stated[field] for field in stated if stated[field] != tidied[field]}
    return {"question": tidied["question"], "answer": tidied["answer"], "stated": changed}


def open_or_closed(row: Row, where: str) -> str:
    """The row's own answer_type as "open" or "closed"."""
    stated = text(row, "answer_type", where).lower()
    if stated not in ("open", "closed"):
        raise UserError(f"{where}: 'answer_type' is {shown(row['answer_type'])}, neither OPEN nor CLOSED")
    return stated


def closed_if_yes_or_no(answer: str) -> str:
    """The answer type of a set that does not state one."""
    return "closed" if is_yes_or_no(answer) else "open"
