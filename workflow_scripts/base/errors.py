"""The exceptions whose messages are meant for the person at the keyboard."""

import difflib
import reprlib
import signal
from collections.abc import Collection

STOPPING = (signal.SIGTERM, signal.SIGUSR1)


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


class Terminated(BaseException):
    """A signal from scancel, or at a time limit: no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int, state: str = "") -> None:
        super().__init__(f"{self._by(number)}{state}")
        self.number = number
        self.status = 128 + number  # the exit status, as a shell has it

    @staticmethod
    def _by(number: int) -> str:
        return f"stopped by {signal.Signals(number).name}"


class OutOfTime(Terminated):
    """The time limit of its job would have come before another step was saved."""

    NUMBER = signal.SIGXCPU  # which nobody sends

    @staticmethod
    def _by(number: int) -> str:
        return "stopped before the time limit of the job"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 100, 100


def shown(value: object) -> str:
    """`value` as an error shows it: in one line, and not the whole of a long one."""
    return _SHORT.repr(value)


def brief(error: BaseException) -> str:
    """What a library says went wrong, in one line, and not the whole of a long one."""
    return " ".join(str(error).split())[:200]


def unknown(name: object, known: Collection[object]) -> str:
    """Say that `name` is not among `known`, list these, and suggest the nearest."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{shown(name)} is unknown (known: {', '.join(map(str, known))}){hint}"
