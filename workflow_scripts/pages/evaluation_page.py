"""The page of one run: its numbers with their doubt, each a link to the questions behind it."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup

from workflow_scripts.evaluation.analysis import ProtocolScores
from workflow_scripts.evaluation.protocols import ScoringProtocol
from workflow_scripts.evaluation.statistics.breakdown import Group
from workflow_scripts.evaluation.statistics.comparisons import Comparison, beyond_noise, p_text, verdict
from workflow_scripts.evaluation.statistics.confusion import Confusion
from workflow_scripts.evaluation.statistics.power import resolution_text
from workflow_scripts.evaluation.table import Evaluation, lines, named, tried
from workflow_scripts.pages import charts, rendering
from workflow_scripts.pages.evidence import Packed
from workflow_scripts.pages.thumbnails import Thumbnails

GROUPINGS = {
    "set": "Set",
    "language": "Language",
    "answer_type": "Closed or open, as the set says",
    "yes_no": "Closed or open, by the gold answer",
    "question_type": "Type of question",
    "organ": "Organ",
    "modality": "Modality",
}
CONFUSIONS = {"yes_no": "yes or no", "choices": "one of few other answers"}
NOTES = ("excluded", "raised", "unscored")
_SCRIPT = Path(__file__).parent / "templates" / "questions.js"


@dataclass(frozen=True)
class Evidence:
    """What the list of questions shows."""

    packed: Packed
    thumbnails: Thumbnails


def evaluation_page(
    path: Path,
    evaluation: Evaluation,
    scoring: Sequence[ScoringProtocol],
    evidence: Evidence,
    links: dict[str, str],
) -> None:
    """Write the page of an evaluation that has all its parts; `links` are titles and addresses relative to it."""
    script = _SCRIPT.read_text("utf-8")
    rendering.write(
        path,
        "evaluation.html.j2",
        evaluation=evaluation,
        name=named(evaluation),
        tried=tried(evaluation),
        links=links,
        headline=_headline(evaluation),
        forest=rendering.headline_forest(evaluation),
        comparisons=_comparisons(evaluation),
        gains=_gains(evaluation),
        differences=_differences_plot(evaluation),
        protocols=[_protocol(evaluation, protocol) for protocol in scoring],
        closed=_closed(evaluation),
        groupings=_groupings(evaluation),
        resolution=resolution_text(evaluation["resolution"]),
        evidence=evidence,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _headline(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for each line: its scores over all, closed and open questions, and how readable its answers are."""
    return [
        {
            "key": key,
            "score": evaluation["groups"][key]["overall"]["all"]["score"],
            "numbers": found["overall"],
            "answers": evaluation["groups"][key]["overall"]["all"],
        }
        for key, _, found in lines(evaluation)
    ]


def _compared(name: str, first: str, second: str, comparison: Comparison) -> dict[str, Any]:
    return {
        "name": name,
        "first": first,
        "second": second,
        "text": verdict(comparison, rendering.LINES[second]),
        "p": p_text(comparison.get("p_holm", comparison["p"])),
        "mcnemar": comparison["mcnemar"],
        "mcnemar_p": p_text(comparison["mcnemar"]["p"]) if comparison["mcnemar"] else "",
    }


def _comparisons(evaluation: Evaluation) -> list[dict[str, Any]]:
    found = []
    for name, comparison in evaluation["comparisons"].items():
        second, first = name.split(" over ")
        label = f"{rendering.LINES[second]} over {rendering.LINES[first]}"
        found.append(_compared(label, first, second, comparison))
    return found


def _gains(evaluation: Evaluation) -> list[dict[str, Any]]:
    final = evaluation["final_stage"]
    return [
        _compared(f"{rendering.LINES[final]} over {rendering.LINES[line]}", line, final, comparison)
        for line, comparison in evaluation["picture"]["gains"].items()
    ]


def _differences_plot(evaluation: Evaluation) -> Markup:
    """All paired differences of the page, in points, about a line at 0."""
    final = rendering.LINES[evaluation["final_stage"]]
    named = {
        **{
            " over ".join(rendering.LINES[part] for part in name.split(" over ")): comparison
            for name, comparison in evaluation["comparisons"].items()
        },
        **{
            f"{final} over {rendering.LINES[line].lower()}": comparison
            for line, comparison in evaluation["picture"]["gains"].items()
        },
    }
    points = [
        charts.point(name, comparison["difference"], beyond_noise(comparison))
        for name, comparison in named.items()
    ]
    return charts.forest_plot("Paired differences", points, "points, with 95 % intervals", 0)


def _protocol(evaluation: Evaluation, protocol: ScoringProtocol) -> dict[str, Any]:
    """A protocol with its scores by line, and how many of the final model's rows it does not score."""
    found: dict[str, ProtocolScores] = {
        key: evaluation["protocols"][key][protocol.NAME] for key, _, _ in lines(evaluation)
    }
    overall: dict[str, Any] = {**found[evaluation["final_stage"]]["overall"]}
    return {
        "name": protocol.NAME,
        "definition": protocol.DEFINITION,
        "denominator": protocol.DENOMINATOR,
        "source": protocol.SOURCE,
        "faults": protocol.FAULTS,
        "headlines": {key: scores["headline"] for key, scores in found.items()},
        "n": overall["n"],
        "notes": {note: overall[note] for note in NOTES if overall.get(note)},
        "numbers": {name: overall[name] for name in protocol.NUMBERS if name in overall},
    }


def confusions(evaluation: Evaluation) -> dict[tuple[str, str], Markup]:
    """The charts of what was answered to closed questions, by test set and by which of CONFUSIONS is true."""
    return {
        (name, kind): charts.confusion(f"{name}: closed questions whose answer is {said}", table)
        for name, found in evaluation.get("confusion", {}).items()
        for kind, said in CONFUSIONS.items()
        if (table := cast("Confusion | None", found.get(kind)))
    }


def _closed(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The charts with the number of their questions, and how many closed questions of a set are in none."""
    drawn, found = confusions(evaluation), []
    for name, counted in evaluation.get("confusion", {}).items():
        tables: dict[str, Any] = {kind: counted.get(kind) for kind in CONFUSIONS}
        figures = [
            {
                "said": said,
                "yes_no": "yes/no" if kind == "yes_no" else "other",
                "n": tables[kind]["n"],
                "chart": drawn[name, kind],
            }
            for kind, said in CONFUSIONS.items()
            if tables[kind]
        ]
        found.append(
            {
                "set": name,
                "figures": figures,
                "left_out": counted["closed"] - sum(figure["n"] for figure in figures),
            }
        )
    return found


def _groupings(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each grouping that has several groups: the groups' scores by line, and the final model's answers."""
    by_line = {key: evaluation["groups"][key] for key, _, _ in lines(evaluation)}
    found = []
    for name, title in GROUPINGS.items():
        final: dict[str, Group] = by_line[evaluation["final_stage"]][name]
        if len(final) > 1:
            rows = [
                {
                    "name": group,
                    "scores": {key: groups[name][group]["score"] for key, groups in by_line.items()},
                    "answers": answers,
                }
                for group, answers in sorted(final.items(), key=lambda item: -item[1]["score"]["n"])
            ]
            found.append({"key": name, "title": title, "rows": rows})
    return found
