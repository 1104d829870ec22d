"""One evaluation as the lines that a person compares: the floor, each stage, and blank and other images."""

from typing import Any, NotRequired, TypedDict

from workflow_scripts.base import versions
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.analysis import PictureUse, ProtocolScores
from workflow_scripts.evaluation.predictions import Breakdown
from workflow_scripts.evaluation.statistics.breakdown import Group
from workflow_scripts.evaluation.statistics.comparisons import Comparison
from workflow_scripts.evaluation.statistics.intervals import Estimate
from workflow_scripts.evaluation.statistics.power import Resolution

STAGES = {"untrained": "before training", "sft": "after SFT", "dpo": "after DPO"}
_MODELS = {"sft": "SFT", "dpo": "DPO"}


class Evaluation(TypedDict):
    """The evaluation of a run, as schema.json describes its file."""

    run: str
    final_stage: str
    versions: NotRequired[dict[str, int | None]]  # of each stage; absent in evaluations of before
    data_fingerprint: str
    model: dict[str, Any]
    stages: dict[str, Breakdown]
    floor: dict[str, Breakdown]
    ablation: dict[str, Breakdown]
    groups: NotRequired[dict[str, dict[str, dict[str, Group]]]]
    protocols: NotRequired[dict[str, dict[str, ProtocolScores]]]
    comparisons: NotRequired[dict[str, Comparison]]
    picture: NotRequired[PictureUse]
    resolution: NotRequired[Resolution]
    cost: dict[str, float]


def lines(evaluation: Evaluation) -> list[tuple[str, str, Breakdown]]:
    """(key, label, group) for what the evaluation has, from the floor up; a group has "overall" at least."""
    found = [("floor", "question-only floor", evaluation.get("floor", {}).get("question_only"))]
    told = "untrained" in evaluation["model"].get(
        "asked", {}
    )  # evaluations of before asked the bare question
    for stage, label in STAGES.items():
        suffix = ", instructed" if told and stage == "untrained" else ""
        found.append((stage, label + suffix, evaluation["stages"].get(stage)))
    for variant, pictures in (("blank_image", "blank images"), ("shuffled_image", "other images")):
        label = f"{_MODELS[evaluation['final_stage']]} model on {pictures}"
        found.append((variant, label, evaluation.get("ablation", {}).get(variant)))
    return [(key, label, group) for key, label, group in found if group]


def with_interval(found: Estimate) -> str:
    """A share and its interval in per cent: "62.3 [58.1, 66.4]"; the share alone where it has none."""
    if found["interval"] is None:
        return percent(found["value"])
    low, high = found["interval"]
    return f"{percent(found['value'])} [{100 * low:.1f}, {100 * high:.1f}]"


def percent(share: float | None) -> str:
    """A share of 0..1 in per cent with one decimal; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}"


def table(evaluation: Evaluation) -> str:
    """The evaluation as aligned text: accuracy in per cent over all, closed and open rows and each test set.

    "terms" is over all rows with medical synonyms taken for equal.
    """
    found = lines(evaluation)
    test_sets = sorted({name for _, _, group in found for name in group.get("test_sets", {})})
    cells = [["", "all", "closed", "open", *test_sets, "terms"]]
    for _, label, group in found:
        overall, parts = group["overall"], group.get("test_sets", {})
        shares = [overall["accuracy"], overall.get("closed_accuracy"), overall.get("open_exact_match")]
        shares += [parts[name]["accuracy"] if name in parts else None for name in test_sets]
        shares.append(overall.get("accuracy_terms"))
        cells.append([label, *map(percent, shares)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]
    n = evaluation["stages"][evaluation["final_stage"]]["overall"]["n"]
    caption = (
        f"{evaluation['run']}: accuracy in %, {protocols.DEFAULT.NAME} protocol, n = {n:,} questions, unreadable ones are wrong;"
        " terms: medical synonyms are right too"
    )
    older = versions.others(evaluation.get("versions", versions.UNKNOWN))
    warning = [f"made by another version of the code than this one: {older}"] if older else []
    return "\n".join([caption, *rows, *warning])
