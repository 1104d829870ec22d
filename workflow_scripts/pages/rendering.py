"""The pages that a run leaves for people: each is one HTML file that needs no network and no other file."""

from functools import cache
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workflow_scripts.base import files, versions
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.predictions import Breakdown, Metrics, Prediction
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.evaluation.table import Evaluation, lines, percent
from workflow_scripts.pages import charts

STAGES = {
    "untrained": "Untrained",
    "sft": "SFT",
    "dpo": "DPO",
    "blank_image": "Blank image",
    "shuffled_image": "Other image",
}
LINES = {"floor": "Question-only floor", **STAGES}


class ReportedRun(TypedDict):
    """What the report shows of a run: `sft` and `dpo` are their metrics.json, `links` paths relative to the page."""

    run: str
    evaluation: Evaluation
    sft: dict[str, Any] | None
    dpo: dict[str, Any] | None
    validation: dict[str, Any] | None
    links: dict[str, str]


def validation_page(path: Path, summary: dict[str, Any]) -> None:
    """Write what the validate stage found in a set: counts, problems, lengths, answers and samples."""
    lengths = summary["token_lengths"]
    chart = charts.histogram("Tokens per example", lengths["histogram"], lengths["limit"])
    write(path, "validation.html.j2", summary=summary, lengths_chart=chart)


def pairs_page(path: Path, run: str, most: int, origins: dict[str, list[dict[str, str]]]) -> None:
    """Write preference pairs by origin, at most `most` of each; a pair's "image" is a data URI from `thumbnail`."""
    write(path, "pairs.html.j2", run=run, most=most, origins=origins)


def report_page(path: Path, runs: list[ReportedRun]) -> None:
    """Write the comparison of all runs, then one section a run."""
    write(path, "report.html.j2", runs=[_report_section(run) for run in runs])


def _report_section(run: ReportedRun) -> dict[str, Any]:
    """The run with what its section shows: the lines to compare, its groups, and its charts."""
    found = {key: group for key, _, group in lines(run["evaluation"])}
    accuracy = {key: group["overall"]["accuracy"] for key, group in found.items()}
    bars = [(key, label, share) for key, label in STAGES.items() if (share := accuracy.get(key)) is not None]
    losses = {
        stage: charts.line_chart(
            f"{STAGES[stage]} loss by step",
            [(point["step"], point["loss"]) for point in training["curve"] if point.get("loss") is not None],
        )
        for stage, training in (("sft", run["sft"]), ("dpo", run["dpo"]))
        if training
    }
    return {
        **run,
        "other_versions": versions.others(run["evaluation"].get("versions", versions.UNKNOWN)),
        "accuracy": accuracy,
        "groups": _groups(found),
        "bars": charts.accuracy_bars("Accuracy by stage", bars, accuracy.get("floor")),
        "losses": losses,
    }


def _groups(found: dict[str, Breakdown]) -> list[tuple[str, list[tuple[str, Metrics]]]]:
    """(heading, [(line, metrics), ...]) over everything, then by test set and by language where they differ."""
    groups = [("All test questions", [(key, group["overall"]) for key, group in found.items()])]
    test_sets = {key: group.get("test_sets", {}) for key, group in found.items()}
    languages = {key: group.get("languages", {}) for key, group in found.items()}
    for parts, heading in ((test_sets, "Test set {}"), (languages, "Language {}")):
        names = sorted({name for part in parts.values() for name in part})
        groups += [
            (heading.format(name), [(key, part[name]) for key, part in parts.items() if name in part])
            for name in names
            if len(names) > 1
        ]
    return groups


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: "42 s", "3 min 05 s", "2 h 07 min"; a dash where unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration, count="{:,}".format)
    environment.globals.update(
        stages=STAGES, lines=LINES, protocol=protocols.DEFAULT, link=link
    )
    return environment


def link(**chosen: str) -> str:
    """The part of a run's page that lists the questions of this filter, as questions.js reads it."""
    return "#" + urlencode(chosen, quote_via=quote)


def write(path: Path, template: str, **values: object) -> None:
    """Render `template` with `values` into `path`."""
    files.write_text(path, _environment().get_template(template).render(values))
