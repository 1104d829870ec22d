"""Checks one after the other, each within its seconds: what one of them does never hides what another found."""

import contextlib
import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from workflow_scripts.base import files


class Skipped(Exception):
    """A check cannot be made here; the message says why."""


class _OutOfTime(BaseException):
    """A check took all its seconds; what a check makes of an Exception of its own does not catch it."""


@dataclass(frozen=True)
class Goal:
    """What was aimed at, what was found, and whether that is enough."""

    what: str
    found: str
    met: bool


@dataclass
class Findings:
    """What a check found. Every figure is on the disk at once: a run that is killed leaves what it measured."""

    name: str
    changed: Callable[[], None] = lambda: None
    state: str = "running"
    seconds: float = 0.0
    error: str = ""
    trace: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def figure(self, name: str, value: Any) -> None:
        """Keep and print one figure: a number, a text, or several by name."""
        self.figures[name] = value
        print(f"  {name}: {_text(value)}", flush=True)
        self.changed()

    def goal(self, what: str, found: str, met: bool) -> None:
        """Keep and print a goal, met or missed."""
        self.goals.append(Goal(what, found, bool(met)))
        print(f"  {'met' if met else 'MISSED'}: {what}: {found}", flush=True)
        self.changed()

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("changed", "goals")}
        return {**kept, "goals": [asdict(goal) for goal in self.goals]}


@dataclass(frozen=True)
class Check:
    """`run` notes what it finds, and is stopped after `seconds`."""

    name: str
    seconds: float
    run: Callable[[Findings], None]


def run(checks: list[Check], seconds: float, written: Path) -> list[Findings]:
    """Run `checks` in their order, all within `seconds`, and write what they find to the JSON file `written`."""
    all_findings: list[Findings] = []
    started = time.monotonic()

    def write() -> None:
        files.write_json(
            written,
            {
                "seconds": time.monotonic() - started,
                "checks": [findings.numbers() for findings in all_findings],
            },
        )

    for check in checks:
        findings = Findings(check.name, write)
        all_findings.append(findings)
        left = seconds - (time.monotonic() - started)
        print(f"{check.name} (at most {min(check.seconds, max(left, 0)):.0f} s)", flush=True)
        _run(check, findings, min(check.seconds, left))
        write()
        print(f"  {findings.state} after {findings.seconds:.1f} s {findings.error}", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    return all_findings


def _run(check: Check, findings: Findings, seconds: float) -> None:
    """Run one check; nothing of its failure is kept but text, for frames would hold its models."""
    started = time.monotonic()
    try:
        if seconds <= 1:
            raise Skipped("no time is left")
        with _within(seconds):
            check.run(findings)
        findings.state = "done"
    except Skipped as error:
        findings.state, findings.error = "skipped", str(error)
    except _OutOfTime:
        findings.state, findings.error = "stopped", f"its {seconds:.0f} s are over"
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        findings.state, findings.error = "failed", f"{type(error).__name__}: {lines[0][:300]}"
        findings.trace = traceback.format_exc()
    findings.seconds = time.monotonic() - started


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Stop the block after `seconds`, at its next step in Python."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(all_findings: list[Findings]) -> str:
    """Every check with its figures and goals, as text."""
    lines = [""]
    for findings in all_findings:
        lines.append(f"{findings.name:<14} {findings.state:<8} {findings.seconds:6.1f} s  {findings.error}")
        lines += [f"    {name}: {_text(value)}" for name, value in findings.figures.items()]
        lines += [
            f"    {'met   ' if goal.met else 'MISSED'}  {goal.what}: {goal.found}" for goal in findings.goals
        ]
    goals = [goal for findings in all_findings for goal in findings.goals]
    lines.append(f"{sum(goal.met for goal in goals)} of {len(goals)} goals are met")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(_text(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
