"""Scoring protocols, a module each: what counts as right, and the numbers over prediction rows.

To add one: a module with NAME, DEFINITION and `metrics`, as `strict` has, and its place in MODULES.
"""

from collections.abc import Iterable
from typing import Protocol

from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.protocols import strict

Metrics = dict[str, float | int | None]


class ScoringProtocol(Protocol):
    """What a module of this room has. `DEFINITION` is what pages say of it, in a clause."""

    NAME: str
    DEFINITION: str

    def metrics(self, rows: Iterable[dict], terms: Terminology | None = None) -> Metrics:
        """The numbers over prediction rows: `n`, then shares of 0..1, None where a group is empty."""


MODULES: tuple[ScoringProtocol, ...] = (strict,)
PROTOCOLS = {protocol.NAME: protocol for protocol in MODULES}
DEFAULT = strict


def breakdown(
    rows: Iterable[dict], terms: Terminology | None = None, protocol: ScoringProtocol = DEFAULT
) -> dict[str, dict]:
    """The metrics of `protocol` over all rows ("overall"), by source ("test_sets") and by language ("languages")."""
    rows = list(rows)
    by = {"test_sets": "source", "languages": "language"}
    return {
        "overall": protocol.metrics(rows, terms),
        **{
            group: {
                name: protocol.metrics([row for row in rows if row[key] == name], terms)
                for name in sorted({row[key] for row in rows})
            }
            for group, key in by.items()
        },
    }
