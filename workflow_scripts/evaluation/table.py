"""One evaluation as the lines that a person compares: the floor, each stage, and blank and other images."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any, NotRequired, TypedDict

from workflow_scripts.base import versions
from workflow_scripts.base.columns import aligned
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.analysis import PictureUse, ProtocolScores
from workflow_scripts.evaluation.predictions import Breakdown
from workflow_scripts.evaluation.statistics.breakdown import OVERALL, Group
from workflow_scripts.evaluation.statistics.comparisons import Comparison, verdict
from workflow_scripts.evaluation.statistics.confusion import ClosedAnswers
from workflow_scripts.evaluation.statistics.intervals import Estimate
from workflow_scripts.evaluation.statistics.power import Resolution, resolution_text

STAGES = {"untrained": "before training", "sft": "after SFT", "dpo": "after DPO"}
WIDTH = 100  # columns of a terminal
_MODELS = {
    "floor": "question-only floor",
    "untrained": "untrained",
    "sft": "SFT",
    "dpo": "DPO",
    "blank_image": "blank images",
    "shuffled_image": "other images",
}


class Evaluation(TypedDict):
    """The evaluation of a run, as schema.json describes its file."""

    run: str
    final_stage: str
    limit: NotRequired[int]  # of a try on so many rows of each split of a set
    versions: NotRequired[dict[str, int | None]]  # of each stage; absent in evaluations of before
    data_fingerprint: str
    provenance: NotRequired[
        Mapping[str, Any]
    ]  # as stages/provenance.py has it; absent in evaluations of before
    model: dict[str, Any]
    stages: dict[str, Breakdown]
    floor: dict[str, Breakdown]
    ablation: dict[str, Breakdown]
    groups: NotRequired[dict[str, dict[str, dict[str, Group]]]]
    protocols: NotRequired[dict[str, dict[str, ProtocolScores]]]
    comparisons: NotRequired[dict[str, Comparison]]
    picture: NotRequired[PictureUse]
    confusion: NotRequired[dict[str, ClosedAnswers]]
    resolution: NotRequired[Resolution]
    cost: dict[str, float]


def named(evaluation: Evaluation) -> str:
    """The run's name, which says so where the run is but a try."""
    limit = evaluation.get("limit")
    return f"{evaluation['run']} (a try, limit {limit})" if limit else evaluation["run"]


def tried(evaluation: Evaluation) -> str:
    """What to think of the scores of a try; "" for a whole run."""
    if limit := evaluation.get("limit"):
        return f"a try of the chain on at most {limit} rows of each split of a set: its scores say nothing about the model"
    return ""


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
    """The evaluation as aligned text of at most `WIDTH` columns: accuracy in per cent, then what differs beyond noise.

    Over all rows with its interval, over closed and open ones and each test set. "terms" is over all rows with medical
    synonyms taken for equal.
    """
    n = evaluation["stages"][evaluation["final_stage"]]["overall"]["n"]
    caption = (
        f"{named(evaluation)}: accuracy in %, {protocols.DEFAULT.NAME} protocol, n = {n:,} questions, unreadable ones are "
        "wrong; with 95 % intervals; terms: medical synonyms are right too"
    )
    older = versions.others(evaluation.get("versions", versions.UNKNOWN))
    warning = [f"made by another version of the code than this one: {older}"] if older else []
    notes = [*([told] if (told := tried(evaluation)) else []), *differences(evaluation), *warning]
    wrapped = [_wrapped(line) for line in notes]
    return "\n".join([_wrapped(caption), *_scores(evaluation), *wrapped])


def _scores(evaluation: Evaluation) -> list[str]:
    """The lines of the table, in which the test sets come below where they find no room beside the rest."""
    found = lines(evaluation)
    labels = ["", *(label for _, label, _ in found)]
    columns = [
        ["all", *(_over_all(evaluation, key, group) for key, _, group in found)],
        ["closed", *(percent(group["overall"].get("closed_accuracy")) for *_, group in found)],
        ["open", *(percent(group["overall"].get("open_exact_match")) for *_, group in found)],
        ["terms", *(percent(group["overall"].get("accuracy_terms")) for *_, group in found)],
    ]
    names = sorted({name for *_, group in found for name in group.get("test_sets", {})})
    sets = [[name, *(_of_set(group, name) for *_, group in found)] for name in names]
    blocks, room = [[*columns[:3]]], WIDTH - max(map(len, labels)) - _width([*columns])
    for column in sets:
        if (room := room - _width([column])) < 0:
            blocks.append([])
            room = WIDTH - max(map(len, labels)) - _width([column])
        blocks[-1].append(column)
    blocks[0].append(columns[3])
    return [line for block in blocks for line in aligned(list(zip(labels, *block, strict=True)), left=1)]


def _of_set(group: Breakdown, name: str) -> str:
    parts = group.get("test_sets", {})
    return percent(parts[name]["accuracy"] if name in parts else None)


def _over_all(evaluation: Evaluation, key: str, group: Breakdown) -> str:
    described = evaluation.get("groups", {}).get(key)
    if described is None:
        return percent(group["overall"]["accuracy"])
    return with_interval(described["overall"][OVERALL]["score"])


def _width(columns: list[list[str]]) -> int:
    return sum(2 + max(map(len, column)) for column in columns)


def differences(evaluation: Evaluation) -> list[str]:
    """In a line each, the paired differences with their verdicts, the score free of leaks, and what the set can show."""
    said = []
    for name, comparison in evaluation.get("comparisons", {}).items():
        named = " over ".join(_MODELS[line] for line in name.split(" over "))
        said.append(f"{named}: {verdict(comparison)}")
    if use := evaluation.get("picture"):
        for line, gain in use["gains"].items():
            said.append(f"{_MODELS[evaluation['final_stage']]} over {_MODELS[line]}: {verdict(gain)}")
        if (leaks := use["leaks"]) and leaks["leaked"]["n"]:
            said.append(
                f"{_MODELS[evaluation['final_stage']]} free of leaked images: {with_interval(leaks['free'])} of "
                f"{leaks['free']['n']:,}, official: {with_interval(leaks['all'])}"
            )
    if (resolution := evaluation.get("resolution")) and (text := resolution_text(resolution)):
        said.append(text)
    return said


def _wrapped(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
