"""The choices of a multiple-choice row: in columns (A, Choice A, option_a, 选项A), or a list or object in one."""

import re
import string
from collections.abc import Collection

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.readers.fields import Row, lines

_COLUMN = re.compile(r"(?:(?:choice|option|opt|answer|选项|選項)[\s_.-]*)?([a-z])", re.IGNORECASE)
_LIST = ("choices", "options", "选项", "選項")


def stated(row: Row, fields: Collection[str], answer: str) -> dict[str, str]:
    """The text of each choice by its letter, in order; {} where the row has none; `fields` are columns of other use.

    Choices that cannot be understood, or blank ones of which the `answer` names one, are a ValueError.
    """
    columns = {
        match[1].upper(): key
        for key in row
        if key not in fields and isinstance(key, str) and (match := _COLUMN.fullmatch(key.strip()))
    }
    listed = next((row[key] for key in row if str(key).strip().lower() in _LIST and key not in fields), None)
    if {"A", "B"} <= columns.keys():
        values: list[tuple[str, object]] = sorted((letter, row[key]) for letter, key in columns.items())
    elif isinstance(listed, dict):
        values = [
            (str(letter).strip().upper(), value) for letter, value in listed.items() if value is not None
        ]
    elif isinstance(listed, list):
        values = list(zip(string.ascii_uppercase, listed, strict=False))
    elif listed:
        raise ValueError(
            f"the choices are {shown(listed)}; give a column for each (A, B, …), a list or an object"
        )
    else:
        return {}
    found = {letter: _text(letter, value) for letter, value in values}
    found = {letter: text for letter, text in found.items() if text}
    if not found and _bare(answer) not in map(str.casefold, dict(values)):
        return {}  # a table may have rows of several kinds
    letters = "".join(found)
    if letters != string.ascii_uppercase[: len(letters)] or len(found) < 2:
        raise ValueError(
            f"the choices are {letters or 'blank'}, not A, B and so on without a gap; complete them"
        )
    if len({text.casefold() for text in found.values()}) < len(found):
        raise ValueError(f"two choices say the same: {shown(list(found.values()))}; correct the row")
    return found


def _text(letter: str, value: object) -> str:
    """A choice without its own letter: "A: Liver" as "Liver"."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise ValueError(f"choice {letter} is {shown(value)}, not text")
    text = " ".join(("" if value is None else str(value)).split())
    return re.sub(rf"^[(（]?{re.escape(letter)}\s*[:：.．、)）]\s*", "", text, flags=re.IGNORECASE)


def _bare(answer: str) -> str:
    """An answer without what stands around a letter: "(B)." as "b"."""
    return answer.strip("()（）.．:： ").casefold()


def asked(question: str, choices: dict[str, str]) -> str:
    """The question with the choices below it, one a line: "A. Liver"."""
    return "\n".join([lines(question), *(f"{letter}. {text}" for letter, text in choices.items())])


def answered(answer: str, choices: dict[str, str]) -> str:
    """The text of the choice that `answer` gives by its letter, its text or both; "" stays; else a ValueError."""
    wanted = " ".join(answer.split()).casefold()
    if not wanted:
        return ""
    found = {
        text
        for letter, text in choices.items()
        if _bare(wanted) == letter.casefold()
        or wanted == text.casefold()
        or _text(letter, wanted).casefold() == text.casefold()
    }
    if len(found) != 1:
        raise ValueError(
            f"the answer {shown(answer)} is {'several' if found else 'none'} of the choices {', '.join(choices)}"
        )
    return found.pop()
