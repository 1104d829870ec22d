"""What a newcomer is told holds: the commands are there, the worked change applies, the hooks call what is installed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
GUIDES = ("CONTRIBUTING.md", "CONTRIBUTING.zh.md")


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def commands(name: str) -> list[str]:
    return [line.split("   #")[0].strip() for block in blocks(name, "sh") for line in block.splitlines()]


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
    called += re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"lint", "types", "coverage", "test-slow"} <= set(called) <= TARGETS


def test_the_worked_change_applies():
    for change in blocks(GUIDES[0], "diff"):
        answer = subprocess.run(
            ["git", "apply", "--check", "-"],
            input=change,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr


def test_the_hooks_call_what_is_installed():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    tools = [shlex.split(hook["entry"])[0] for hook in local["hooks"]]
    assert {Path(tool).name for tool in tools} == {"ruff", "snakefmt", "mypy", "lint-imports"}
    for tool in tools:
        assert (
            Path(tool).parent == Path(".venv/bin")
            and Path(sys.executable).with_name(Path(tool).name).exists()
        )
