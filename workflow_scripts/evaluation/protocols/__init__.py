"""Scoring protocols, a module each: what counts as right, and the numbers over prediction rows.

To add one: a module with what `strict` has in capital letters, `verdicts` and `metrics`, and its place in MODULES.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol

from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Breakdown, Metrics, ScoredRow
from workflow_scripts.evaluation.protocols import (
    closed_only,
    llava_med,
    lmms_slake,
    medevalkit,
    strict,
    vqa_bleu_f1,
)
from workflow_scripts.evaluation.verdicts import Verdict, summary


class ScoringProtocol(Protocol):
    """What a module of this room has.

    `DEFINITION` and `DENOMINATOR` are what pages say of it, in a clause each; `SOURCE` the project, version and address
    that it is taken from, `FAULTS` what is known to be wrong with it, and `NUMBERS` its own numbers beside `accuracy`.
    """

    @property
    def NAME(self) -> str: ...
    @property
    def DEFINITION(self) -> str: ...
    @property
    def DENOMINATOR(self) -> str: ...
    @property
    def SOURCE(self) -> str: ...
    @property
    def FAULTS(self) -> tuple[str, ...]: ...
    @property
    def NUMBERS(self) -> tuple[str, ...]: ...

    def verdicts(self, rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
        """One for each row. It raises for no text."""
        ...

    def metrics(self, rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
        """The numbers over prediction rows: `n`, then shares of 0..1, None where a group is empty."""
        ...


MODULES: tuple[ScoringProtocol, ...] = (strict, llava_med, medevalkit, lmms_slake, vqa_bleu_f1, closed_only)
PROTOCOLS = {protocol.NAME: protocol for protocol in MODULES}
DEFAULT = strict


def breakdown(
    rows: Iterable[ScoredRow], terms: Terminology | None = None, protocol: ScoringProtocol = DEFAULT
) -> Breakdown:
    """The metrics of `protocol` over all rows ("overall"), by source ("test_sets") and by language ("languages")."""
    rows = list(rows)
    return breakdown_of(rows, protocol.verdicts(rows, terms), protocol.NUMBERS)


def breakdown_of(
    rows: Sequence[ScoredRow], verdicts: Sequence[Verdict], numbers: Collection[str]
) -> Breakdown:
    """The same from the verdicts on each of `rows`, with the means of the protocol's own `numbers`."""

    def by(key: Literal["source", "language"]) -> dict[str, Metrics]:
        groups: dict[str, list[Verdict]] = {name: [] for name in sorted({row[key] for row in rows})}
        for row, verdict in zip(rows, verdicts, strict=True):
            groups[row[key]].append(verdict)
        return {name: summary(group, numbers) for name, group in groups.items()}

    return {
        "overall": summary(verdicts, numbers),
        "test_sets": by("source"),
        "languages": by("language"),
    }
