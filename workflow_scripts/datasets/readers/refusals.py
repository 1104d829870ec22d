"""The bad files and rows of a set, listed at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from workflow_scripts.base.errors import UserError

LISTED = 20


class Refusals:
    """What is wrong with a set, a line each; the first are kept and the others counted."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the UserError that the block ends in, and go on after it."""
        try:
            yield
        except UserError as error:
            self._count += 1
            if self._count <= LISTED:
                self._lines.append(str(error))

    def end(self) -> None:
        """A UserError with all that was collected, if anything was."""
        if more := self._count - len(self._lines):
            self._lines.append(f"and {more} more")
        if self._lines:
            raise UserError("\n".join(self._lines))
