"""Do one thing for many models: `--mode evaluate --models_dir results/sft` scores every model in that folder."""

import logging
from pathlib import Path
from typing import Any

from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies, flags
from workflow_scripts.configuration.settings import Config
from workflow_scripts.evaluation.table import percent
from workflow_scripts.models import bases
from workflow_scripts.models.prompt_styles import AUTO
from workflow_scripts.stages.evaluate_model import evaluate_model

logger = logging.getLogger(__name__)


def models_in(folder: Path) -> list[Path]:
    """The models and adapters directly below `folder`, by name."""
    if not folder.is_dir():
        raise UserError(f"--models_dir {folder}: no such folder")
    found = [path for path in sorted(folder.iterdir()) if bases.is_model(path)]
    if not found:
        raise UserError(
            f"--models_dir {folder}: no model in it (a folder with {bases.CONFIG} or {bases.ADAPTER_CONFIG})"
        )
    return found


def evaluate(
    settings: Config,
    layout: Layout,
    models_dir: Path,
    test_datasets: list[str],
    output: Path,
    prompt_style: str = AUTO,
) -> dict[str, dict[str, Any]]:
    """Score every model of a folder on `test_datasets`, or else on the set it was trained on; writes metrics by name
    to `output` and returns them, marked by `other_versions` where results of other versions of the code differ, and by
    `limit` where they are a try's."""
    # All names first: a model that cannot be asked is found before hours go into the others.
    names = {path: _names(path, test_datasets) for path in models_in(models_dir)}
    with locks.one_writer(output, settings.output_in_use):
        summary = _scores(settings, layout, names, prompt_style)
        files.write_json(output, summary)
    return summary


def _scores(
    settings: Config, layout: Layout, names: dict[Path, tuple[str, str, list[str]]], prompt_style: str
) -> dict[str, dict[str, Any]]:
    summary = {}
    for path, (version, mode, tests) in names.items():
        settings.checkpoint(version, mode)
        own = dependencies.shown_to("ask", settings, Run(tests[0], version, mode))
        output = layout.model_evaluation(path)
        result = evaluate_model(own, layout, path, version, mode, tests, output, prompt_style)
        overall = result["overall"]
        logger.info("%s: %s %% of %d", path.name, percent(overall["accuracy"]), overall["n"])
        if older := versions.others(result["versions"]):
            logger.warning(
                "%s: made by another version of the code: %s; not to be compared", path.name, older
            )
        marks = {"limit": result.get("limit"), "other_versions": older}
        summary[path.name] = {**overall, **{key: value for key, value in marks.items() if value}}
    return summary


def _names(path: Path, test_datasets: list[str]) -> tuple[str, str, list[str]]:
    """(model version, mode, test sets) of a model."""
    known = flags.names_of_model(path)
    tests = test_datasets or flags.comma_separated(known.get("dataset", ""))
    if not known or not tests:
        raise UserError(
            f"{path}: neither metrics.json nor the folder's name, {{dataset}}_{{model_version}}_{{mode}}, tells "
            "what it was trained for"
        )
    return known["model_version"], known["mode"], tests
