"""Record a terminal session as docs/demo.cast and draw its end as docs/demo.svg: `python -m docs.demo_session make demo`.

The cast is asciinema's format, version 2, which `asciinema play docs/demo.cast` shows. `--text FILE` takes what the command has
printed before instead of running it: its lines then follow each other at an even pace.
"""

import argparse
import json
import os
import pty
import re
import sys
import time
from html import escape
from pathlib import Path

PLACE = Path(__file__).with_name("demo.cast")
COLUMNS, ROWS = 100, 40
PACE = 0.4  # seconds from a line to the next, where nobody saw when it was printed
LONGEST_WAIT = 1.5  # seconds in the cast for a longer one of the session
MACHINE = re.compile(re.escape(str(Path.cwd())))
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
LINE, SIDE, WIDTH = 19, 16, 860
STYLE = """
    text { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px;
      fill: #d6dbe0; white-space: pre }
    .command { fill: #8fc7a1 }
"""


def record(command: list[str]) -> tuple[str, int]:
    """The cast of a command in a terminal of its own, and the command's status; the project's folder is not named in it."""
    events: list[tuple[float, str]] = []
    last = time.monotonic()
    at = 0.0

    def read(descriptor: int) -> bytes:
        nonlocal at, last
        data = os.read(descriptor, 1 << 16)
        now = time.monotonic()
        at, last = at + min(now - last, LONGEST_WAIT), now
        events.append((round(at, 3), MACHINE.sub(".", data.decode(errors="replace"))))
        return data

    os.environ.update(COLUMNS=str(COLUMNS), LINES=str(ROWS))
    status = os.waitstatus_to_exitcode(pty.spawn(command, read))
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": " ".join(command)}
    typed = [(0.0, f"$ {' '.join(command)}\r\n")]
    lines = [
        json.dumps(head),
        *(json.dumps([when, "o", text], ensure_ascii=False) for when, text in typed + events),
    ]
    return "\n".join(lines) + "\n", status


def told(command: list[str], text: str) -> str:
    """The cast of a command that has printed `text`, a line after the other."""
    lines = MACHINE.sub(".", text).splitlines()
    return written(
        command, [(round(PACE * number, 3), f"{line}\r\n") for number, line in enumerate(lines, 1)]
    )


def written(command: list[str], events: list[tuple[float, str]]) -> str:
    """The cast as text: its head, the command as it is typed, and what was printed when."""
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": " ".join(command)}
    typed = [(0.0, f"$ {' '.join(command)}\r\n")]
    lines = [
        json.dumps(head),
        *(json.dumps([when, "o", text], ensure_ascii=False) for when, text in typed + events),
    ]
    return "\n".join(lines) + "\n"


def screen(cast: str) -> list[str]:
    """The lines that stand there in the end, without colours; a line that was written over counts as its last."""
    _, *events = map(json.loads, cast.splitlines())
    text = CONTROL.sub("", "".join(data for _, kind, data in events if kind == "o"))
    return [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").strip().split("\n")]


def kind(line: str) -> str:
    return "command" if line.startswith("$ ") else "said"


def drawing(cast: str) -> str:
    """The lines as a terminal shows them."""
    lines = screen(cast)
    height = (len(lines) + 2) * LINE
    title = escape(json.loads(cast.partition("\n")[0])["title"])
    words = [
        f'<text x="{SIDE}" y="{SIDE + (number + 1) * LINE}" class="{kind(line)}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
                f'  <title id="title">{title}</title>',
                "  <!-- Written by docs/demo_session.py from docs/demo.cast. -->",
                f"  <style>{STYLE}  </style>",
                f'  <rect width="{WIDTH}" height="{height}" rx="8" fill="#1d2228"/>',
                *(f"  {line}" for line in words),
                "</svg>",
            ]
        )
        + "\n"
    )


def main(arguments: list[str], place: Path = PLACE) -> int:
    """Write the cast and the drawing; returns the command's status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, help="what the command has printed")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if options.text:
        cast, status = told(options.command, options.text.read_text(encoding="utf-8")), 0
    else:
        cast, status = record(options.command)
    place.write_text(cast, encoding="utf-8")
    place.with_suffix(".svg").write_text(drawing(cast), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
