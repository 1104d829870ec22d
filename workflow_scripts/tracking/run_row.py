"""What a run's results say in a row of a table and in a page of Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workflow_scripts.base import files, versions
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.evaluation import table
from workflow_scripts.evaluation.table import Evaluation, percent, with_interval
from workflow_scripts.tracking import journal
from workflow_scripts.tracking.journal import Journal

DIGITS = 4  # of a number in a row: MLflow's table cuts longer ones off
_LINES = {
    "floor": "floor",
    "untrained": "untrained",
    "sft": "sft",
    "dpo": "dpo",
    "blank_image": "blank",
    "shuffled_image": "other_images",
}


@dataclass(frozen=True)
class RunRow:
    """The numbers and tags of a run; its evaluation, where there is one."""

    numbers: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    method: str = ""
    evaluation: Evaluation | None = None


def of_run(layout: Layout, run: Run, configuration: str) -> RunRow:
    """What there is of a run so far by this configuration, and what its stages took: another one's may lie there still."""
    evaluation = evaluation_of(layout, run, configuration)
    trainings = {
        stage: files.read_object(layout.metrics(stage, run))
        for stage in journal.RESUMED
        if layout.metrics(stage, run).is_file()
        and (evaluation or _has_trained(layout, run, configuration, stage))
    }
    seconds = sum(found["seconds"] for found in trainings.values())
    numbers: dict[str, float | None] = {}
    tags: dict[str, str] = {}
    if evaluation:
        numbers |= _scores(evaluation)
        tags = {"final_stage": evaluation["final_stage"], **_warnings(evaluation)}
        if limit := evaluation.get("limit"):
            tags["limit"] = str(limit)
        seconds += evaluation["cost"].get("eval_seconds", 0)
    numbers["hours"] = seconds / 3600 if seconds else None
    numbers |= _peaks(layout, run, configuration)
    method = trainings["sft"]["method"] if "sft" in trainings else ""
    shown = {key: round(value, DIGITS) for key, value in numbers.items() if value is not None}
    return RunRow(shown, tags, method, evaluation)


def evaluation_of(layout: Layout, run: Run, configuration: str) -> Evaluation | None:
    """The evaluation of the run, if it is of this configuration by its own word."""
    if not layout.evaluation(run).is_file():
        return None
    found: Any = files.read_object(layout.evaluation(run))
    evaluation: Evaluation = found
    made_by = evaluation.get("provenance", {}).get("run_fingerprint")
    return evaluation if made_by == configuration else None


def _has_trained(layout: Layout, run: Run, configuration: str, stage: str) -> bool:
    """Whether the model that `stage` has left is of this configuration, which has said so."""
    events = Journal(journal.path_of(layout, run, configuration, stage)).read()
    told = {event.get("digest") for event, _ in events if event["kind"] == "model"}
    return journal.digest(layout.trained(stage, run)) in told


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    final = evaluation["final_stage"]
    found = evaluation["stages"][final]
    overall = found["overall"]
    numbers: dict[str, float | None] = {
        "accuracy": overall["accuracy"],
        "closed_accuracy": overall.get("closed_accuracy"),
        "open_accuracy": overall.get("open_exact_match"),
        "questions": overall["n"],
    }
    if groups := evaluation.get("groups"):
        interval = groups[final]["overall"]["all"]["score"]["interval"]
        numbers |= dict(zip(("accuracy_low", "accuracy_high"), interval or (None, None), strict=True))
    for key, _, group in table.lines(evaluation):
        numbers[f"accuracy_{_LINES[key]}"] = group["overall"]["accuracy"]
    use = evaluation.get("picture")
    if use and use["leaks"]:
        numbers["accuracy_leak_free"] = use["leaks"]["free"]["value"]
    for name, scores in found["test_sets"].items():
        numbers[f"accuracy/{name}"] = scores["accuracy"]
    return numbers


def _warnings(evaluation: Evaluation) -> dict[str, str]:
    older = versions.others(evaluation.get("versions", versions.UNKNOWN))
    return {"other_versions": older or "none"}


def _peaks(layout: Layout, run: Run, configuration: str) -> dict[str, float]:
    """The most memory that a stage of this configuration has taken, in GiB."""
    found: dict[str, float] = {}
    for path in journal.all_of(layout, run):
        if path.parent.name == configuration:
            for event, _ in Journal(path).read():
                if event["kind"] == "metrics":
                    for name in ("peak_memory_gb", "peak_gpu_memory_gb"):
                        value = event["values"].get(f"system/{name}", 0.0)
                        if value:
                            found[name] = max(found.get(name, 0.0), value)
    return found


def description(found: RunRow, links: Sequence[str]) -> str:
    """The summary as Markdown: the final model, the table of results, what differs beyond noise, and where more is."""
    parts = []
    if evaluation := found.evaluation:
        final = evaluation["final_stage"]
        n = evaluation["stages"][final]["overall"]["n"]
        score = (
            with_interval(groups[final]["overall"]["all"]["score"])
            if (groups := evaluation.get("groups"))
            else percent(evaluation["stages"][final]["overall"]["accuracy"])
        )
        parts.append(f"The final model is that of **{final}**: accuracy **{score} %** of {n:,} questions.")
        if told := table.tried(evaluation):
            parts.append(f"**This is {told}.**")
        parts.append(_results(evaluation))
        parts.append("\n".join(f"- {line}" for line in table.differences(evaluation)))
        if (older := found.tags.get("other_versions", "none")) != "none":
            parts.append(f"**Made by another version of the code than this one: {older}.**")
    else:
        parts.append("Not evaluated yet.")
    if links:
        parts.append("Stages: " + ", ".join(links))
    return "\n\n".join(filter(None, parts))


def _results(evaluation: Evaluation) -> str:
    rows = table.lines(evaluation)
    sets = sorted({name for *_, group in rows for name in group.get("test_sets", {})})
    head = ["accuracy, %", "all", "closed", "open", *sets]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    for key, label, group in rows:
        overall, parts = group["overall"], group.get("test_sets", {})
        described = evaluation.get("groups", {}).get(key)
        whole = (
            with_interval(described["overall"]["all"]["score"]) if described else percent(overall["accuracy"])
        )
        lines.append(
            [
                f"**{label}**" if key == evaluation["final_stage"] else label,
                whole,
                percent(overall.get("closed_accuracy")),
                percent(overall.get("open_exact_match")),
                *(percent(parts[name]["accuracy"] if name in parts else None) for name in sets),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
