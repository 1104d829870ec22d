"""The pages that a run leaves for people: each is one HTML file that needs no network and no other file."""

import base64
import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from workflow_scripts.base import files, versions
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.predictions import Breakdown, Metrics, Prediction
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.evaluation.table import Evaluation, lines, percent
from workflow_scripts.pages import charts

THUMBNAIL_SIDE = 200
STAGES = {
    "untrained": "Untrained",
    "sft": "SFT",
    "dpo": "DPO",
    "blank_image": "Blank image",
    "shuffled_image": "Other image",
}


class ReportedRun(TypedDict):
    """What the report shows of a run: `sft` and `dpo` are their metrics.json, `links` paths relative to the page."""

    run: str
    evaluation: Evaluation
    sft: dict[str, Any] | None
    dpo: dict[str, Any] | None
    validation: dict[str, Any] | None
    links: dict[str, str]


def thumbnail(image: Image.Image) -> str:
    """The picture as a JPEG data URI of at most 200 px a side; the picture itself is left as it was."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def validation_page(path: Path, summary: dict[str, Any]) -> None:
    """Write what the validate stage found in a set: counts, problems, lengths, answers and samples."""
    lengths = summary["token_lengths"]
    chart = charts.histogram("Tokens per example", lengths["histogram"], lengths["limit"])
    _write(path, "validation.html.j2", summary=summary, lengths_chart=chart)


def gallery_page(path: Path, title: str, rows: Iterable[Prediction]) -> None:
    """Write sampled predictions, one card a question with every stage's answer.

    `rows` are prediction rows, one a question and stage, whose "image" is a data URI from `thumbnail`.
    """
    cards: dict[str, dict[str, Any]] = {}
    for row in rows:
        card = cards.setdefault(row["id"], {**row, "predictions": {}})
        card["predictions"][row["stage"]] = {**row, "verdict": _verdict(row)}
    _write(path, "gallery.html.j2", title=title, cards=list(cards.values()))


def _verdict(row: Prediction) -> str:
    if row["answer"] is None:
        return "unreadable"
    right = strict.correct(row["gold"], row["answer"], row["answer_type"] == "closed")
    return "right" if right else "wrong"


def pairs_page(path: Path, run: str, most: int, origins: dict[str, list[dict[str, str]]]) -> None:
    """Write preference pairs by origin, at most `most` of each; a pair's "image" is a data URI from `thumbnail`."""
    _write(path, "pairs.html.j2", run=run, most=most, origins=origins)


def report_page(path: Path, runs: list[ReportedRun]) -> None:
    """Write the comparison of all runs, then one section a run."""
    _write(path, "report.html.j2", runs=[_report_section(run) for run in runs])


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
        stages=STAGES, lines={"floor": "Question-only floor", **STAGES}, protocol=protocols.DEFAULT
    )
    return environment


def _write(path: Path, template: str, **values: object) -> None:
    files.write_text(path, _environment().get_template(template).render(values))
