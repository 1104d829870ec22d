"""The pages that a run leaves for people: each is one HTML file that needs no network and no other file."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.base import files, versions
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.analysis import FLOOR
from workflow_scripts.evaluation.predictions import Breakdown, Metrics
from workflow_scripts.evaluation.statistics.breakdown import OVERALL, Group
from workflow_scripts.evaluation.statistics.comparisons import Comparison, p_text, verdict
from workflow_scripts.evaluation.table import Evaluation, differences, lines, percent, tried
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
    """What the report shows of a run: `sft` and `dpo` are their metrics.json, `links` paths relative to the page.

    `costs` are lines of a table, a stage each and last the sum.
    """

    run: str
    evaluation: Evaluation
    sft: dict[str, Any] | None
    dpo: dict[str, Any] | None
    validation: dict[str, Any] | None
    costs: Sequence[Mapping[str, object]]
    links: dict[str, str]


def validation_page(path: Path, summary: dict[str, Any]) -> None:
    """Write what the validate stage found in a set: counts, problems, lengths, answers and samples."""
    lengths = summary["token_lengths"]
    chart = charts.histogram("Tokens per example", lengths["histogram"], lengths["limit"])
    write(path, "validation.html.j2", summary=summary, lengths_chart=chart)


def pairs_page(path: Path, run: str, most: int, origins: dict[str, list[dict[str, str]]]) -> None:
    """Write preference pairs by origin, at most `most` of each; a pair's "image" is a data URI from `thumbnail`."""
    write(path, "pairs.html.j2", run=run, most=most, origins=origins)


def report_page(path: Path, runs: list[ReportedRun], between: Mapping[str, Comparison] | None = None) -> None:
    """Write the comparison of all runs, then one section a run; `between` are differences of two runs by their names."""
    pairs = [
        (name, verdict(comparison), p_text(comparison.get("p_holm")))
        for name, comparison in (between or {}).items()
    ]
    write(
        path,
        "report.html.j2",
        runs=[_report_section(run) for run in runs],
        forest=_forest_of(runs),
        between=pairs,
    )


def _forest_of(runs: list[ReportedRun]) -> Markup:
    """The final model of each run with its interval, and its floor below it."""
    points: list[charts.Point | None] = []
    for run in runs:
        groups, final = run["evaluation"].get("groups", {}), run["evaluation"]["final_stage"]
        if final in groups and FLOOR in groups:
            points.append(_point(run["run"], groups[final], strong=True))
            points.append(_point(f"{run['run']}, floor", groups[FLOOR], strong=False))
    return charts.forest_plot("Accuracy of all runs", points, "accuracy, %, with 95 % intervals")


def _point(label: str, groups: Mapping[str, Mapping[str, Group]], strong: bool) -> charts.Point | None:
    return charts.point(label, groups["overall"][OVERALL]["score"], strong)


def headline_forest(evaluation: Evaluation) -> Markup:
    """The score of every line with its interval, where it is known, and the floor as a line across."""
    groups, accuracies = evaluation.get("groups", {}), {}
    points: list[charts.Point | None] = []
    for key, _, found in lines(evaluation):
        accuracy = accuracies[key] = found["overall"]["accuracy"]
        if key in groups:
            points.append(_point(LINES[key], groups[key], key == evaluation["final_stage"]))
        elif accuracy is not None:
            points.append(charts.Point(LINES[key], 100 * accuracy, None, key == evaluation["final_stage"]))
    floor = accuracies.get(FLOOR)
    axis = "accuracy, %, with 95 % intervals; dashed: the floor"
    return charts.forest_plot("Accuracy by line", points, axis, None if floor is None else 100 * floor)


def _report_section(run: ReportedRun) -> dict[str, Any]:
    """The run with what its section shows: the lines to compare, its groups, and its charts."""
    evaluation = run["evaluation"]
    found = {key: group for key, _, group in lines(evaluation)}
    losses = {
        stage: charts.line_chart(
            f"{STAGES[stage]} loss by step",
            [(point["step"], point["loss"]) for point in training["curve"] if point.get("loss") is not None],
        )
        for stage, training in (("sft", run["sft"]), ("dpo", run["dpo"]))
        if training
    }
    described = evaluation.get("groups", {})
    leaks = evaluation["picture"]["leaks"] if "picture" in evaluation else None
    return {
        **run,
        "other_versions": versions.others(evaluation.get("versions", versions.UNKNOWN)),
        "accuracy": {key: group["overall"]["accuracy"] for key, group in found.items()},
        "scores": {key: groups["overall"][OVERALL]["score"] for key, groups in described.items()},
        "free": leaks["free"] if leaks else None,
        "groups": _groups(found),
        "forest": headline_forest(evaluation),
        "losses": losses,
        "differences": differences(evaluation),
        "tried": tried(evaluation),
    }


def _groups(
    found: dict[str, Breakdown],
) -> list[tuple[str, dict[str, str], list[tuple[str, Metrics]]]]:
    """(heading, filter of its questions, [(line, metrics), ...]) over everything, then by set and by language where they differ."""
    groups: list[tuple[str, dict[str, str], list[tuple[str, Metrics]]]] = [
        ("All test questions", {}, [(key, group["overall"]) for key, group in found.items()])
    ]
    test_sets = {key: group.get("test_sets", {}) for key, group in found.items()}
    languages = {key: group.get("languages", {}) for key, group in found.items()}
    for parts, heading, key in ((test_sets, "Test set {}", "set"), (languages, "Language {}", "language")):
        names = sorted({name for part in parts.values() for name in part})
        groups += [
            (
                heading.format(name),
                {key: name},
                [(line, part[name]) for line, part in parts.items() if name in part],
            )
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
    environment.globals.update(stages=STAGES, lines=LINES, protocol=protocols.DEFAULT, link=link)
    return environment


def link(**chosen: str) -> str:
    """The part of a run's page that lists the questions of this filter, as questions.js reads it."""
    return "#" + urlencode(chosen, quote_via=quote)


def write(path: Path, template: str, **values: object) -> None:
    """Render `template` with `values` into `path`."""
    files.write_text(path, _environment().get_template(template).render(values))
