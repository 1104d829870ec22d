"""One check of preflight, as it is printed."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do unless it is ok."""

    name: str
    state: State
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        advice = f"; {self.remedy}" if self.state != "ok" and self.remedy else ""
        return f"{self.state:<5}{self.name:<13}{self.found}{advice}"
