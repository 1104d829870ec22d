"""Bring the results of all runs together on one page, `results/report/index.html`, or print those of one run."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

import workflow_scripts.evaluation
from workflow_scripts.base import credentials, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.evaluation import paper, protocols, scores, table
from workflow_scripts.evaluation.scores import Scored
from workflow_scripts.evaluation.statistics import comparisons
from workflow_scripts.evaluation.statistics.comparisons import Comparison
from workflow_scripts.evaluation.table import Evaluation
from workflow_scripts.pages import rendering
from workflow_scripts.pages.rendering import ReportedRun
from workflow_scripts.stages import costs
from workflow_scripts.tracking.mlflow_store import tracking_uri

logger = logging.getLogger(__name__)

_SCHEMA = Path(workflow_scripts.evaluation.__file__).with_name("schema.json")


def report(layout: Layout) -> list[ReportedRun]:
    """Write the page about every run that has an evaluation, and return what it shows of each."""
    runs = [_run(layout, _evaluation(path)) for path in _all(layout)]
    rendering.report_page(layout.report(), runs, between_runs(layout, [run["evaluation"] for run in runs]))
    return runs


def _all(layout: Layout) -> list[Path]:
    """The evaluations that there are, at least one."""
    found = sorted((layout.root / "eval").glob("*.json"))
    if not found:
        raise UserError(
            f"{layout.root / 'eval'}: no results yet; run `make demo`, or "
            "`snakemake results/eval/{dataset}_{model_version}_{mode}.json`"
        )
    return found


def between_runs(layout: Layout, evaluations: Sequence[Evaluation]) -> dict[str, Comparison]:
    """The final models of runs that were asked the same questions, compared by pairs: "{second} over {first}".

    A table of each data set, with Holm's p values in it.
    """
    tables: dict[str, dict[str, Scored]] = defaultdict(dict)
    for evaluation in evaluations:
        run = Run(*evaluation["run"].split("_"))
        if (path := layout.scores(run)).is_file():
            found = scores.read(path, evaluation["final_stage"], protocols.DEFAULT.NAME)
            tables[run.dataset][str(run)] = found
    compared: dict[str, Comparison] = {}
    for table_of_set in tables.values():
        pairs = {
            f"{second} over {first}": _compared(table_of_set[first], table_of_set[second])
            for first, second in combinations(table_of_set, 2)
            if table_of_set[first].keys() == table_of_set[second].keys()
        }
        compared |= comparisons.corrected(pairs)
    return compared


def _compared(first: Scored, second: Scored) -> Comparison:
    """The same questions, those of one image together."""
    clusters = [cluster for _, cluster in first.values()]
    ours, theirs = ([found[question][0] for question in first] for found in (first, second))
    return comparisons.compare(ours, theirs, np.array(clusters))


def _evaluation(path: Path) -> Evaluation:
    """The evaluation in `path`; a file that is none is a UserError that names it."""
    evaluation: Any = files.read_json(path)
    if error := best_match(Draft202012Validator(files.read_json(_SCHEMA)).iter_errors(evaluation)):
        raise UserError(
            f"{path}: not an evaluation ({error.json_path}: {shorten(error.message, 200)}); move it to another folder"
        )
    checked: Evaluation = evaluation
    return checked


def _run(layout: Layout, evaluation: Evaluation) -> ReportedRun:
    run = Run(*evaluation["run"].split("_"))
    linked = {
        "evaluation": layout.evaluation_page(run),
        "data": layout.validation_page(run),
        "numbers": layout.evaluation(run),
    }
    # The page says in one line what the model is; the linked numbers have the rest.
    model = {key: value for key, value in evaluation["model"].items() if not isinstance(value, dict)}
    return {
        "run": str(run),
        "evaluation": {**evaluation, "model": model},
        "sft": _read_if_there(layout.metrics("sft", run)),
        "dpo": _read_if_there(layout.metrics("dpo", run)),
        "validation": _read_if_there(layout.validation(run)),
        "costs": costs.of_run(layout, run),
        "links": {
            title: os.path.relpath(path, layout.report().parent)
            for title, path in linked.items()
            if path.is_file()
        },
    }


def _read_if_there(path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = files.read_json(path) if path.is_file() else None
    return found


def printed(settings: Config, layout: Layout, runs: Sequence[str], form: str = "text") -> str:
    """The scores of `runs` as tables and how to see more, or in a form of `paper`: then of all runs where none is named."""
    paths = [layout.root / "eval" / f"{run}.json" for run in runs]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; `snakemake {path}` makes it")
    if form != "text":
        return paper.FORMATS[form]([_evaluation(path) for path in paths or _all(layout)])
    lines = ["\n\n".join(_told(layout, _evaluation(path)) for path in paths)]
    lines += ["", f"Report: make open, or open {layout.report()}"]
    if "mlflow" in settings.tracking:
        uri = credentials.without(tracking_uri(settings, layout))
        start = (
            ""
            if uri.startswith("http")
            else "make mlflow, or mlflow ui --host 127.0.0.1 --backend-store-uri "
        )
        lines.append(f"MLflow: {start}{uri}")
    return "\n".join(lines)


def _told(layout: Layout, evaluation: Evaluation) -> str:
    """The scores of a run, and what it has cost."""
    return "\n\n".join(
        filter(None, [table.table(evaluation), costs.table(layout, Run(*evaluation["run"].split("_")))])
    )


def stage(layout: Layout) -> None:
    """`report`, and where it is."""
    logger.info("%s: %d run(s)", layout.report(), len(report(layout)))
