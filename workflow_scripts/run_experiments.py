"""Do one thing for many models: `--mode evaluate --models_dir results/sft` scores every model in that folder."""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
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
    flags.add_prompt_style(parser)
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import run_experiments

    output = options.output or layout.model_evaluation(options.models_dir)
    run_experiments.evaluate(
        settings,
        layout,
        options.models_dir,
        flags.comma_separated(options.test_datasets),
        output,
        options.prompt_style,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
