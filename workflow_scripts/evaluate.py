"""Score what a run's models answered to its test questions: `results/eval/{run}.json`, predictions and a page.

As a stage of the chain (no --model_path) it loads no model: `ask` has asked them. With --model_path it asks and scores
that one model on the sets of --test_datasets.
"""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.base.paths import Run
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument(
        "--model_path", type=flags.model_folder, help="ask and score this model or adapter alone"
    )
    parser.add_argument(
        "--test_datasets",
        default="",
        help="with --model_path: names with commas; empty: the one it was trained on",
    )
    parser.add_argument(
        "--output", type=Path, help="with --model_path: the JSON to write; default: in results/eval/models/"
    )
    flags.add_prompt_style(parser)
    options = parser.parse_args(arguments)
    if path := options.model_path:
        version, mode = flags.run_names(options, path, ("model_version", "mode"))
        tests = flags.comma_separated(options.test_datasets) or flags.run_names(options, path, ("dataset",))
        from workflow_scripts.stages import evaluate_model

        settings, layout = flags.stage_inputs(options, "ask", Run(tests[0], version, mode))
        output = options.output or layout.model_evaluation(path)
        evaluate_model.stage(settings, layout, path, version, mode, tests, output, options.prompt_style)
    else:
        from workflow_scripts.stages import evaluate

        run = flags.run_of(options)
        settings, layout = flags.stage_inputs(options, "evaluate", run)
        evaluate.stage(settings, layout, run)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
