"""The scores of an answer file by all protocols: each number with its interval, beside what print has."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

from workflow_scripts.base.columns import aligned
from workflow_scripts.evaluation.predictions import ScoredRow
from workflow_scripts.evaluation.protocols import ScoringProtocol
from workflow_scripts.evaluation.published import Published
from workflow_scripts.evaluation.statistics.clusters import Labels
from workflow_scripts.evaluation.statistics.intervals import Estimate, Interval, estimate
from workflow_scripts.evaluation.table import percent
from workflow_scripts.evaluation.verdicts import Note, Verdict

NAMED = 5  # rows and questions that are named on the screen; the JSON names all


class ProtocolTable(TypedDict):
    """The numbers of one protocol with their intervals, how many rows have no score, and why, and what print has."""

    definition: str
    denominator: str
    numbers: dict[str, Estimate]
    test_sets: dict[str, dict[str, Estimate]]
    languages: dict[str, dict[str, Estimate]]
    without_score: dict[Note, int]
    published: list[Published]


class GroupScores(TypedDict):
    """The scores of one model, or stage, of a file; `matched` counts the answers by what their question was found."""

    questions: int
    matched: dict[str, int]
    unmatched: list[str]
    unanswered: list[str]
    protocols: dict[str, ProtocolTable]


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
    clusters: Labels,
    in_print: Sequence[Published],
) -> ProtocolTable:
    """The numbers of `verdicts` on `rows` in `clusters` [n], over all, by source and by language."""

    def by(key: Literal["source", "language"]) -> dict[str, dict[str, Estimate]]:
        names = sorted({row[key] for row in rows})
        if len(names) == 1:
            return {names[0]: overall}
        return {
            name: numbers(
                protocol, verdicts, clusters, [place for place, row in enumerate(rows) if row[key] == name]
            )
            for name in names
        }

    overall = numbers(protocol, verdicts, clusters, range(len(rows)))
    notes = [verdict.note for verdict in verdicts if verdict.note]
    return {
        "definition": protocol.DEFINITION,
        "denominator": protocol.DENOMINATOR,
        "numbers": overall,
        "test_sets": by("source"),
        "languages": by("language"),
        "without_score": {note: notes.count(note) for note in dict.fromkeys(notes)},
        "published": list(in_print),
    }


def numbers(
    protocol: ScoringProtocol, verdicts: Sequence[Verdict], clusters: Labels, places: Iterable[int]
) -> dict[str, Estimate]:
    """`accuracy` and the protocol's own numbers over the rows at `places`, each with its 95 % interval."""
    found: dict[str, dict[int, float]] = {name: {} for name in ("accuracy", *protocol.NUMBERS)}
    for place in places:
        score, own = verdicts[place].score, verdicts[place].scores
        for name, value in {**({} if score is None else {"accuracy": score}), **own}.items():
            found[name][place] = value
    return {name: estimate(list(scores.values()), clusters[list(scores)]) for name, scores in found.items()}


def printed(scores: Scores) -> str:
    """The scores as text: for each group its counts, a line a number, and what print has below its protocol."""
    return "\n\n".join(_printed(scores, group) for group in scores["groups"])


def _shown(interval: Interval | None) -> str:
    """An interval of a share, in per cent; that of few images may reach beyond what a share can be."""
    return " – ".join(percent(min(1, max(0, end))) for end in interval) if interval else "–"


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
            told = _shown(value["interval"])
            title = protocol if number == "accuracy" else ""
            cells.append([title, number, f"{value['n']:,}", percent(value["value"]), told])
        without = [f"{count:,} {note}" for note, count in own["without_score"].items()]
        prints[len(cells) - 1] = ([f"  not in it: {', '.join(without)}"] if without else []) + [
            f"  in print, {row['split']}: {row['model']} "
            + ", ".join(f"{name} {value:.1f}" for name, value in row["numbers"].items())
            + f" ({row['source']}{'; ' + row['note'] if row['note'] else ''})"
            for row in own["published"]
        ]
    for place, line in enumerate(aligned(cells, left=2)):
        lines += [line, *prints.get(place, [])]
    return "\n".join(lines)
