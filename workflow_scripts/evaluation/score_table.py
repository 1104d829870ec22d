"""The scores of an answer file by all protocols: each number with its interval, beside what print has."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

from workflow_scripts.evaluation.predictions import ScoredRow
from workflow_scripts.evaluation.protocols import ScoringProtocol
from workflow_scripts.evaluation.published import Published
from workflow_scripts.evaluation.table import percent
from workflow_scripts.evaluation.verdicts import Note, Verdict

NAMED = 5  # rows and questions that are named on the screen; the JSON names all


class Number(TypedDict):
    """A mean of 0..1 over `n` questions, None where there is none, and its 95 % interval, clustered by image."""

    value: float | None
    n: int
    interval: tuple[float, float] | None


class ProtocolScores(TypedDict):
    """The numbers of one protocol, how many rows have no score, and why, and what print has."""

    definition: str
    denominator: str
    numbers: dict[str, Number]
    test_sets: dict[str, dict[str, Number]]
    languages: dict[str, dict[str, Number]]
    without_score: dict[Note, int]
    published: list[Published]


class GroupScores(TypedDict):
    """The scores of one model, or stage, of a file; `matched` counts the answers by what their question was found."""

    questions: int
    matched: dict[str, int]
    unmatched: list[str]
    unanswered: list[str]
    protocols: dict[str, ProtocolScores]


class Scores(TypedDict):
    """What `score` writes; `groups` are by model or stage, "" where the file tells none apart."""

    answers: str
    layout: str
    dataset: str
    questions: str
    judge: str
    groups: dict[str, GroupScores]


def protocol_scores(
    protocol: ScoringProtocol,
    rows: Sequence[ScoredRow],
    verdicts: Sequence[Verdict],
    in_print: Sequence[Published],
) -> ProtocolScores:
    """The numbers of `verdicts` on `rows`, over all, by source and by language."""

    def by(key: Callable[[ScoredRow], str]) -> dict[str, dict[str, Number]]:
        names = sorted(set(map(key, rows)))
        return {
            name: numbers(
                protocol, [pair for pair in zip(rows, verdicts, strict=True) if key(pair[0]) == name]
            )
            for name in names
        }

    notes = [verdict.note for verdict in verdicts if verdict.note]
    return {
        "definition": protocol.DEFINITION,
        "denominator": protocol.DENOMINATOR,
        "numbers": numbers(protocol, zip(rows, verdicts, strict=True)),
        "test_sets": by(lambda row: row["source"]),
        "languages": by(lambda row: row["language"]),
        "without_score": {note: notes.count(note) for note in dict.fromkeys(notes)},
        "published": list(in_print),
    }


def numbers(protocol: ScoringProtocol, judged: Iterable[tuple[ScoredRow, Verdict]]) -> dict[str, Number]:
    """`accuracy` and the protocol's own numbers over rows with their verdicts."""
    found: dict[str, tuple[list[float], list[str]]] = {
        name: ([], []) for name in ("accuracy", *protocol.NUMBERS)
    }
    for row, verdict in judged:
        own = dict(verdict.scores) if verdict.score is None else {"accuracy": verdict.score, **verdict.scores}
        for name, value in own.items():
            found[name][0].append(value)
            found[name][1].append(f"{row['source']}/{row['image_id']}")
    return {name: _number(scores, images) for name, (scores, images) in found.items()}


def _number(scores: list[float], images: list[str]) -> Number:
    return {
        "value": sum(scores) / len(scores) if scores else None,
        "n": len(scores),
        "interval": cluster_interval(scores, images),
    }


def cluster_interval(scores: Sequence[float], clusters: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % interval of a mean whose rows of one cluster stand or fall together; None for one cluster, or equal scores.

    The t interval with clusters - 1 degrees of freedom, of the ratio of the clusters' sums to their sizes.
    """
    import numpy as np
    from scipy import stats

    _, labels = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(labels, scores), np.bincount(labels)
    count = len(sums)
    if count < 2 or len(set(scores)) == 1:
        return None
    mean = sums.sum() / sizes.sum()
    spread = np.sqrt(count / (count - 1) * np.sum((sums - mean * sizes) ** 2)) / sizes.sum()
    half = stats.t.ppf(0.975, count - 1) * spread
    return max(0.0, float(mean - half)), min(1.0, float(mean + half))


def printed(scores: Scores) -> str:
    """The scores as text: for each group its counts, a line a number, and what print has below its protocol."""
    return "\n\n".join(_printed(scores, group) for group in scores["groups"])


def _printed(scores: Scores, group: str) -> str:
    found = scores["groups"][group]
    answered = sum(found["matched"].values())
    ways = ", ".join(f"{count:,} by {way}" for way, count in found["matched"].items())
    name = f"{scores['answers']}{f', {group}' if group else ''}"
    lines = [
        f"{name}: {answered:,} of {found['questions']:,} test questions of {scores['dataset']} answered "
        f"(file of {scores['layout']}; {ways or 'none found'})"
    ]
    for what, rows in (("match no question", found["unmatched"]), ("have no answer", found["unanswered"])):
        if rows:
            more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
            lines.append(f"{len(rows):,} {what}: {'; '.join(rows[:NAMED])}{more}")
    cells = [["protocol", "number", "n", "%", "95 % interval"]]
    prints: dict[int, list[str]] = {}
    for protocol, own in found["protocols"].items():
        for number, value in own["numbers"].items():
            interval = value["interval"]
            told = f"{percent(interval[0])} – {percent(interval[1])}" if interval else "–"
            title = protocol if number == "accuracy" else ""
            cells.append([title, number, f"{value['n']:,}", percent(value["value"]), told])
        without = [f"{count:,} {note}" for note, count in own["without_score"].items()]
        prints[len(cells) - 1] = ([f"  not in it: {', '.join(without)}"] if without else []) + [
            f"  in print, {row['split']}: {row['model']} "
            + ", ".join(f"{name} {value:.1f}" for name, value in row["numbers"].items())
            + f" ({row['source']}{'; ' + row['note'] if row['note'] else ''})"
            for row in own["published"]
        ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for place, row in enumerate(cells):
        left, right = row[:2], row[2:]
        lines.append(
            "  ".join(
                [cell.ljust(width) for cell, width in zip(left, widths, strict=False)]
                + [cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True)]
            )
        )
        lines += prints.get(place, [])
    return "\n".join(lines)
