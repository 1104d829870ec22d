"""Do one thing for many models: `--mode evaluate --models_dir results/sft` scores every model in that folder."""

import logging
import sys
from pathlib import Path

from workflow_scripts import cli, config, files
from workflow_scripts.errors import UserError
from workflow_scripts.evaluate import evaluate_model
from workflow_scripts.paths import Layout

logger = logging.getLogger(__name__)


def models_in(folder: Path) -> list[Path]:
    """The models and adapters directly below `folder`, by name."""
    if not folder.is_dir():
        raise UserError(f"--models_dir {folder}: no such folder")
    found = [
        path
        for path in sorted(folder.iterdir())
        if (path / "config.json").is_file() or (path / "adapter_config.json").is_file()
    ]
    if not found:
        raise UserError(
            f"--models_dir {folder}: no model in it (a folder with config.json or adapter_config.json)"
        )
    return found


def evaluate(
    settings: config.Config, layout: Layout, models_dir: Path, test_datasets: list[str]
) -> dict[str, dict]:
    """Score every model of a folder on `test_datasets`, or else on the set it was trained on; metrics by name."""
    # All names first: a model that cannot be asked is found before hours go into the others.
    names = {path: _names(path, test_datasets) for path in models_in(models_dir)}
    summary = {}
    for path, (version, mode, tests) in names.items():
        settings.checkpoint(version, mode)
        result = evaluate_model(settings, layout, path, version, mode, tests, layout.model_evaluation(path))
        summary[path.name] = result["overall"]
        logger.info(
            "%s: %.1f %% of %d", path.name, 100 * result["overall"]["accuracy"], result["overall"]["n"]
        )
    return summary


def _names(path: Path, test_datasets: list[str]) -> tuple[str, str, list[str]]:
    """(model version, mode, test sets) of a model."""
    known = cli.names_of_model(path)
    tests = test_datasets or cli.comma_separated(known.get("dataset", ""))
    if not known or not tests:
        raise UserError(
            f"{path}: neither metrics.json nor the folder's name, {{dataset}}_{{model_version}}_{{mode}}, tells "
            "what it was trained for"
        )
    return known["model_version"], known["mode"], tests


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    parser.add_argument("--mode", required=True, choices=["evaluate"], help="what to do")
    parser.add_argument("--models_dir", required=True, type=Path, help="folder of models")
    parser.add_argument(
        "--test_datasets", default="", help="names with commas; empty: the one each was trained on"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the summary to write; default: in results/eval/models/, named after the folder",
    )
    options = parser.parse_args(arguments)
    settings, layout = config.load(options.config), Layout(options.results)
    summary = evaluate(settings, layout, options.models_dir, cli.comma_separated(options.test_datasets))
    files.write_json(options.output or layout.model_evaluation(options.models_dir), summary)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
