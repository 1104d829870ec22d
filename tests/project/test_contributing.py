"""What a newcomer is told holds: the commands are there, the worked change applies, the hooks call what is installed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
GUIDES = ("CONTRIBUTING.md", "CONTRIBUTING.zh.md")
WORKED = "tests/datasets/test_polarity.py"
# As `pytest FILE`, and says last which package it has tested.
PYTEST = """
import sys, pytest
status = pytest.main(sys.argv[1:])
import workflow_scripts
print(workflow_scripts.__file__)
sys.exit(status)
"""


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def commands(name: str) -> list[str]:
    return [line.split("   #")[0].strip() for block in blocks(name, "sh") for line in block.splitlines()]


def called_by_ci() -> list[str]:
    return re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)


def test_help_lists_every_command():
    answer = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = dict(re.match(r"make (\S+)\s+(.*)", line).groups() for line in answer.stdout.splitlines())
    assert set(listed) == TARGETS and all(listed.values())
    assert set(re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)[1].split()) == TARGETS


def test_both_guides_give_the_same_commands_and_changes():
    english, chinese = GUIDES
    assert commands(english) == commands(chinese) and "make check" in commands(english)
    assert blocks(english, "diff") == blocks(chinese, "diff")


def test_the_commands_are_there():
    called = re.findall(r"^make ([a-z-]+)", "\n".join(commands(GUIDES[0])), re.MULTILINE)
    called += called_by_ci()
    assert {"lint", "types", "coverage", "test-slow"} <= set(called) <= TARGETS


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_names_what_ci_runs(name):
    (told,) = re.findall(r"^.*`\.ci/run`.*(?:\n.+)*", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"`make ([a-z-]+)`", told) == called_by_ci()


def test_the_worked_change_fails_first_and_then_passes(tmp_path):
    """In a copy, as the guide says: one failure with the test's change, none with the code's."""
    shutil.copytree(
        ROOT / "workflow_scripts", tmp_path / "workflow_scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "tests/conftest.py", WORKED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    # Without those of coverage, which would count the copy's files beside ours.
    own = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

    def failed_after(change: str) -> list[str]:
        subprocess.run(["git", "apply", "-"], input=change, text=True, cwd=tmp_path, check=True)
        done = subprocess.run(
            [sys.executable, "-c", PYTEST, WORKED],
            cwd=tmp_path,
            env={**own, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
        assert done.returncode == bool(failed), done.stdout + done.stderr
        assert done.stdout.endswith(f"{tmp_path / 'workflow_scripts/__init__.py'}\n")
        return failed

    assert commands(GUIDES[0]).count(f"make test FILE={WORKED}") == 3, "before and after, and as an example"
    test, code = blocks(GUIDES[0], "diff")
    assert failed_after(test) == [f"{WORKED}::test_bare_words_are_yes_or_no_in_any_case[Yup]"]
    assert failed_after(code) == []


def test_the_hooks_call_what_is_installed():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    tools = [shlex.split(hook["entry"])[0] for hook in local["hooks"]]
    assert {Path(tool).name for tool in tools} == {"ruff", "snakefmt", "mypy", "lint-imports"}
    for tool in tools:
        assert (
            Path(tool).parent == Path(".venv/bin")
            and Path(sys.executable).with_name(Path(tool).name).exists()
        )
