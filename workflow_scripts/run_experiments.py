"""Do one thing for many models: `--mode evaluate --models_dir results/sft` scores every model in that folder."""

import logging
import sys
from pathlib import Path

from workflow_scripts import cli, config, files
from workflow_scripts.errors import UserError
from workflow_scripts.evaluate import evaluate_model
from workflow_scripts.models.catalogue import MODES
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


def run_name(path: Path, settings: config.Config) -> tuple[str, str, str]:
    """(dataset, model version, mode) of a model whose folder is named after its run."""
    parts = path.name.split("_")
    if (
        len(parts) == 3
        and parts[0] in settings.datasets
        and parts[1] in settings.models
        and parts[2] in MODES
    ):
        return parts[0], parts[1], parts[2]
    raise UserError(
        f"{path}: its name is not {{dataset}}_{{model_version}}_{{mode}}, so its format is not known"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    parser.add_argument("--mode", required=True, choices=["evaluate"], help="what to do")
    parser.add_argument(
        "--models_dir", required=True, type=Path, help="folder of models named after their runs"
    )
    parser.add_argument(
        "--test_datasets", default="", help="names with commas; empty: the one each was trained on"
    )
    parser.add_argument(
        "--output", type=Path, help="the summary to write; default: summary.json in results/eval/models"
    )
    options = parser.parse_args(arguments)
    settings, layout = config.load(options.config), Layout(options.results)
    summary = {}
    for path in models_in(options.models_dir):
        dataset, version, mode = run_name(path, settings)
        names = [name for name in options.test_datasets.split(",") if name] or [dataset]
        output = layout.root / "eval" / "models" / options.models_dir.name / f"{path.name}.json"
        result = evaluate_model(settings, layout, path, version, mode, names, output)
        summary[path.name] = result["overall"]
        logger.info(
            "%s: %.1f %% of %d", path.name, 100 * result["overall"]["accuracy"], result["overall"]["n"]
        )
    files.write_json(options.output or layout.root / "eval" / "models" / "summary.json", summary)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
