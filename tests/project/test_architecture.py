"""docs/architecture.md is true, its drawing and its names, and so are the worked examples of docs/extending.md.

An example is the blocks of code below a heading. A line that begins with a path in backticks and ends with a colon
names the file of the block below it: a `diff` changes it, anything else makes it. `sh` is run, and each line of `text`
is in what the last `sh` printed.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from workflow_scripts.base.paths import STAGES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workflow_scripts"
PAGES = {language: ROOT / "docs" / f"architecture{language}.md" for language in ("", ".zh")}
EXTENDING = {language: ROOT / "docs" / f"extending{language}.md" for language in ("", ".zh")}


class Block(NamedTuple):
    """A block of code; `path` is the file that it makes or changes, "" for none."""

    kind: str
    path: str
    code: str


BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`[^`\n]*[:：]\n\n)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def examples(language: str) -> list[tuple[str, list[Block]]]:
    """(heading, blocks) of each worked example."""
    text = EXTENDING[language].read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    found = [
        (
            heading,
            [Block(match["kind"], match["path"] or "", match["code"]) for match in BLOCK.finditer(body)],
        )
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return [(heading, blocks) for heading, blocks in found if blocks]


LONG = ("a stage", "a model version")


@pytest.mark.parametrize(
    ("heading", "blocks"),
    [
        pytest.param(
            *example,
            id=(name := example[0].strip("… ")),
            marks=[pytest.mark.slow] if name in LONG else [],
        )
        for example in examples("")
    ],
)
def test_the_example_works(copy, heading, blocks):
    printed = None
    for block in blocks:
        if block.kind == "sh":
            printed = run(block.code, copy)
        elif block.kind == "text":
            assert [line for line in block.code.splitlines() if line not in printed] == [], printed
        elif block.kind == "diff":
            change(copy / block.path, block.code)
        else:
            assert not (copy / block.path).exists(), f"{block.path} is there already"
            (copy / block.path).parent.mkdir(parents=True, exist_ok=True)
            (copy / block.path).write_text(block.code, encoding="utf-8")
    assert printed is not None and blocks[-1].kind == "text", f"{heading} shows nothing"
    made = [block.path for block in blocks if block.path.endswith(".py")]
    for checker in (["ruff", "check", "--quiet", *made], ["lint-imports", "--no-cache", "--no-logo"]):
        command = [Path(sys.executable).with_name(checker[0]), *checker[1:]]
        checked = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the project as git has it, but for its tests."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(script: str, folder: Path) -> str:
    """What the commands print; each must succeed."""
    foreign = ("PYTHONPATH", "MEDVQA_CONFIG", "SNAKEMAKE_PROFILE")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return re.sub(" +", " ", done.stdout)


def change(path: Path, diff: str) -> None:
    """Replace, hunk by hunk, what `diff` shows; it stands in the file once."""
    text = path.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1 and old != new, f"{path.name} has {text.count(old)} of\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_a_stale_page_is_found(tmp_path):
    (tmp_path / "a.py").write_text("one\ntwo\n")
    change(tmp_path / "a.py", " one\n-two\n+three\n")
    assert (tmp_path / "a.py").read_text() == "one\nthree\n"
    with pytest.raises(AssertionError, match=r"a\.py has 0 of"):
        change(tmp_path / "a.py", "-two\n+four\n")
    with pytest.raises(AssertionError):
        run("true\nfalse\ntrue", tmp_path)


def test_both_languages_have_the_same_examples():
    found = {language: [block for _, blocks in examples(language) for block in blocks] for language in PAGES}
    assert found[""] == found[".zh"] and len(examples("")) == len(examples(".zh")) == 7


def tables(language: str) -> str:
    """The rows of all tables of a page."""
    lines = PAGES[language].read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


@pytest.mark.parametrize("language", PAGES)
def test_the_files_and_names_that_the_page_tells_of_are_there(language):
    text = re.sub(
        r"^```.*?^```$", "", PAGES[language].read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", text))
    new = {block.path for _, blocks in examples(language) for block in blocks if block.kind != "diff"}
    assert [path for path in named - new if not ((PACKAGE / path).is_file() or (ROOT / path).is_file())] == []
    assert len(named) > 15
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    classes = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", tables(language))) - {"Dataset"}
    assert "Example" in classes and [name for name in classes if f"class {name}" not in source] == []
    keys = set(re.findall(r"`([a-z]+_[a-z_]+)`", tables(language))) - {"run_experiments"}
    assert "prompt_ids" in keys and [key for key in keys if f'"{key}"' not in source] == []


def test_the_page_and_the_drawing_have_every_room_and_stage():
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    script = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    drawn = [name for level in script["ROOMS"] for name, *_ in level]
    assert set(drawn) == rooms | {"*.py"} and len(drawn) == len(set(drawn))
    assert [name for name, *_ in script["CHAIN"]] == list(STAGES)
    for language in PAGES:
        listed = re.findall(r"^\| `([\w*]+(?:/|\.py))`", tables(language), re.MULTILINE)
        assert listed == drawn, "the order of the table is that of the drawing"


@pytest.mark.parametrize(("number", "language"), list(enumerate(PAGES)))
def test_the_drawing_is_what_its_script_draws(number, language):
    script = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    drawn = PAGES[language].with_suffix(".svg").read_text(encoding="utf-8")
    assert drawn == script["drawing"](number), "run python docs/architecture.py"
    assert f"({PAGES[language].with_suffix('.svg').name})" in PAGES[language].read_text(encoding="utf-8")
