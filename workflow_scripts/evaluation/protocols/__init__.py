"""Scoring protocols, a module each: what counts as right, and the numbers over prediction rows.

To add one: a module with NAME, DEFINITION and `metrics`, as `strict` has, and its place in MODULES.
"""

from collections.abc import Iterable
from typing import Literal, Protocol

from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Breakdown, Metrics, ScoredRow
from workflow_scripts.evaluation.protocols import strict


class ScoringProtocol(Protocol):
    """What a module of this room has. `DEFINITION` is what pages say of it, in a clause."""

    @property
    def NAME(self) -> str: ...
    @property
    def DEFINITION(self) -> str: ...

    def metrics(self, rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
        """The numbers over prediction rows: `n`, then shares of 0..1, None where a group is empty."""
        ...


MODULES: tuple[ScoringProtocol, ...] = (strict,)
PROTOCOLS = {protocol.NAME: protocol for protocol in MODULES}
DEFAULT = strict


def breakdown(
    rows: Iterable[ScoredRow], terms: Terminology | None = None, protocol: ScoringProtocol = DEFAULT
) -> Breakdown:
    """The metrics of `protocol` over all rows ("overall"), by source ("test_sets") and by language ("languages")."""
    rows = list(rows)

    def by(key: Literal["source", "language"]) -> dict[str, Metrics]:
        names = sorted({row[key] for row in rows})
        return {name: protocol.metrics([row for row in rows if row[key] == name], terms) for name in names}

    return {"overall": protocol.metrics(rows, terms), "test_sets": by("source"), "languages": by("language")}
