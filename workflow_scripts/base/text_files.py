"""Text files in the encodings that people's programs write: UTF-8, UTF-16 and UTF-32 by their marks, Chinese GB 18030."""

import codecs
import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from workflow_scripts.base.errors import UserError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK = 2**16  # characters
_SAMPLE = 20_000  # foreign characters that are enough to tell Chinese


def read(path: Path) -> str:
    """The text of a file, its mark left out; a UserError where there is none, or its encoding is not known."""
    with opened(path) as file:
        return file.read()


def opened(path: Path, newline: str | None = None) -> TextIO:
    """The file, open to read its text; errors as of `read`."""
    return open(path, encoding=_encoding(path), newline=newline)


def _encoding(path: Path) -> str:
    """The encoding in which the whole of the file is text."""
    try:
        state = os.stat(path)
        return _encoding_of(path, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


@lru_cache  # a file is opened several times, and read in whole to tell
def _encoding_of(path: Path, size: int, written: int) -> str:
    """The same of a file that has `size` and was `written` then, which tell it from a later one of its name.

    Almost any bytes are GB 18030, so what is read as that must look Chinese: Latin-1, Big5 or Shift JIS do not.
    """
    with open(path, "rb") as file:
        head = file.read(4)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    for name in (marked,) if marked else ("utf-8", "gb18030"):
        foreign = _foreign(path, name)
        if foreign is not None and (name != "gb18030" or is_chinese(foreign)):
            return name
    raise UserError(
        f"{path}: neither UTF-8 nor, by its first bytes, UTF-16, nor Chinese in GB 18030 (GBK); save it as UTF-8"
    )


def _foreign(path: Path, name: str) -> str | None:
    """The first characters beyond ASCII in that encoding; None where the file is no text in it."""
    found = io.StringIO()
    try:
        for chunk in _chunks(path, name):
            if "\0" in chunk:
                return None
            if not chunk.isascii() and found.tell() < _SAMPLE:
                found.write("".join(character for character in chunk if not character.isascii()))
    except UnicodeError:
        return None
    return found.getvalue()


def _chunks(path: Path, name: str) -> Iterator[str]:
    with open(path, encoding=name, newline="") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def is_chinese(text: str) -> bool:
    """Whether the characters beyond ASCII of a text that was read as GB 18030 were meant.

    Half of them are then among GB 2312's 3,755 most common ones or its punctuation. Those stand by their sound in rows
    B0 to D7; Korean read as GB 18030 fills the rows to C8 alone, Chinese uses the others nearly as much.
    """
    foreign = [character for character in text if not character.isascii()]
    rows = [code[0] for character in foreign if (code := character.encode("gb2312", "ignore"))]
    common = [row for row in rows if 0xB0 <= row <= 0xD7]
    punctuation = sum(row in (0xA1, 0xA3) for row in rows)
    late = sum(row > 0xC8 for row in common)
    return 2 * (len(common) + punctuation) >= len(foreign) and 12 * late >= len(common) > 0
