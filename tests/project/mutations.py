"""Seeded damage to files: to their bytes, and to the values of what was read from JSON."""

import copy
import json
import random
from typing import Any

DEEP: Any = "x"
for _ in range(200):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 0.0, 1e308, float("nan"), float("inf"), 10**30, "", " ", "\t\n", "\0", "\ud800",
    "\udfff x", "NaN", "NULL", "../../etc/passwd", "/dev/null", "/", ".", "C:\\a.png", "https://example.org/a.png",
    "file:///a.png", "data:image/png;base64,AAAA", "data:,x", "<image>", "</think>", "<answer>", "<|image|>", "\u202e",
    "\U0001f600", "图像？", "x" * 5000, "a/" * 300 + "b.png", [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, DEEP,
    ["a", "b"], {"bytes": None, "path": None}, {"bytes": "x"}, "train", "[1, [", "(" * 300, "yes", "A",
)  # fmt: skip
PIECES = (
    b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xfe\xff\x00", "是".encode("gbk"), "有無".encode("big5"), b"\r", b"\n\n",
    b'"', b"'", b",", b"\t", b"#", b"{", b"}", b"[", b"]", b"[" * 5000, b'{"a":' * 5000, b"\\ud800", b"\\u0000", b"NaN",
    b"-Infinity", b"1" * 5000, b"&a;", b"<!DOCTYPE a>", b'<?xml version="1.0" encoding="utf-7"?>', b"\x80\x04c", b": ",
    b"- ", b"!!python/object:os.system x", b"&a [*a]", b"true", b".inf", b"2026-13-45", b"0o9", b"1:2:3", b"? ", b"%YAML 9",
)  # fmt: skip


def damaged(data: bytes, draw: random.Random) -> bytes:
    """`data` with one to three pieces cut out, repeated, changed or put in; rarely all but its beginning gone."""
    for _ in range(draw.randint(1, 3)):
        begin = draw.randrange(len(data) + 1)
        end = min(len(data), begin + int(draw.expovariate(1 / 20)))
        match draw.randrange(6):
            case 0:
                data = data[:begin] + data[end:]
            case 1:
                data = data[:end] + data[begin:]
            case 2:
                data = data[:begin] + draw.randbytes(end - begin) + data[end:]
            case 3 | 4:
                data = data[:begin] + draw.choice(PIECES) + data[end:]
            case 5:
                data = data[:begin] if draw.random() < 0.3 else data.replace(data[begin:end] or b"\1", b"")
    return data


def altered(value: Any, draw: random.Random) -> Any:
    """A copy of a value from JSON in which one to three places hold something else, or are gone, or stand twice."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return draw.choice(VALUES)
        holder, key = draw.choice(places)
        match draw.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 1 | 2 if isinstance(holder, dict):
                holder[draw.choice(("", f" {key}", f"{key}\0", key.upper(), "x"))] = holder.pop(key)
            case 3 if isinstance(holder[key], str):
                holder[key] = damaged(holder[key].encode(errors="replace"), draw).decode(
                    errors="surrogateescape"
                )
            case _:
                holder[key] = draw.choice(VALUES)
    return value


def _places(value: Any, depth: int = 0) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        if depth < 5:
            yield from _places(inner, depth + 1)


def altered_json(data: bytes, draw: random.Random) -> bytes:
    """The same for a JSON file, or for a line of one with a value a line."""
    try:
        return json.dumps(altered(json.loads(data), draw)).encode()
    except ValueError:
        lines = data.splitlines()
        number = draw.randrange(len(lines))
        try:
            lines[number] = json.dumps(altered(json.loads(lines[number]), draw)).encode()
        except ValueError:
            return damaged(data, draw)
        return b"\n".join(lines)
