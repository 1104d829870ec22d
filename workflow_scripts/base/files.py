"""Files that are either whole or absent: every write goes to a temporary name and is renamed."""

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.base import text_files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import is_running

_ARRAY = re.compile(r"\s*\[\s*\{")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on failure."""
    path = Path(path)
    temporary = _beside(path, "tmp")
    try:
        with _named_as(path, temporary):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; put it in the place of `path` on success."""
    path = Path(path)
    temporary, previous = _beside(path, "tmp"), _beside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _named_as(path, temporary):
            yield temporary
        if path.exists():
            os.rename(path, previous)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def _named_as(path: Path, temporary: Path) -> Iterator[None]:
    """Let a UserError speak of `path`: the temporary name is gone when it is read."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(path))) from error


def _beside(path: Path, kind: str) -> Path:
    """A hidden name beside `path` that belongs to this process alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent.resolve())
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{kind}")


@cache  # once a process and folder
def _remove_stale(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left in `folder`."""
    stale = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.(?:tmp|old)")
    for path in folder.iterdir():
        match = stale.fullmatch(path.name)
        if match and not is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def relative(path: Path, folder: Path) -> str:
    """`path` as it is reached from `folder`, where links lead to either: `..` leaves what a link points to."""
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, whatever it holds; a missing or corrupt one is a UserError that names it."""
    try:
        return parse_json(text_files.read(path))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch or write it again") from None


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file that holds an object with these `keys`; anything else is a UserError that names it."""
    value = read_json(path)
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        lacking = f" with {', '.join(keys)}" if keys else ""
        raise UserError(f"{path}: not the object{lacking} that belongs there; make or fetch it again")
    return value


def read_value(path: Path, key: str) -> Any:
    """Read the value of `key` from a JSON file that holds an object; errors as of `read_object`."""
    return read_object(path, key)[key]


def parse_json(text: str) -> Any:
    """The value of a JSON text; what cannot be read, or be written as UTF-8 again, is a ValueError."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):  # halves of a pair are a character, a lone one is none
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character, \\u{ord(error.object[error.start]):x}") from None
    return value


@contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[Mapping[str, object]], object]]:
    """Yield what writes one JSON object a line."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write one JSON object a line and return how many there were."""
    count = 0
    with jsonl_writer(path) as write:
        for row in rows:
            write(row)
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the objects of a JSONL file, whatever they hold; a bad line is a UserError with its number."""
    for number, line in lines(path):
        try:
            yield parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from None


def json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each element of a JSON array, or of each line; a bad line's value is its ValueError."""
    if holds_array(path):
        yield from enumerate(read_json(path), start=1)
        return
    for number, line in lines(path):
        try:
            yield number, parse_json(line)
        except ValueError as error:
            yield number, error


def holds_array(path: Path) -> bool:
    """Whether a JSON file begins as an array of objects."""
    with text_files.opened(path) as file:
        return bool(_ARRAY.match(file.read(1000)))


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, blank lines left out; one that cannot be read is a UserError."""
    with text_files.opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


class _Checked(yaml.constructor.SafeConstructor):
    """Values of YAML, in which a key may stand only once."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node.value, str) and not node.value.isascii():
            node.value.encode()  # half a character, which nothing could write, is a ValueError
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class _Loader(_Checked, yaml.SafeLoader):
    """For files from anywhere, however deeply nested."""


class _FastLoader(_Checked, yaml.CSafeLoader):
    """Thirty times as fast, for our own files: one that is nested deeply ends the process."""


for _loader in (_Loader, _FastLoader):  # 1e-5 is a number, as everyone who writes it means
    _loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def read_yaml(path: Path, shipped: bool = False) -> dict[str, Any]:
    """Read one YAML file, of this package if `shipped`; an unreadable one is a UserError that names file and line."""
    try:
        value = yaml.load(text_files.read(path), _FastLoader if shipped else _Loader) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None
    except ValueError as error:  # of a date that there is not, for one
        raise UserError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values, found {type(value).__name__}")
    return value


def sha256(path: Path) -> str:
    """The file's SHA-256 as hexadecimal digits; a missing one is a UserError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it") from None


def fingerprint(value: object) -> str:
    """A short stable digest of any JSON value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
