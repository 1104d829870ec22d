"""Score a run's models on its test records: `results/eval/{run}.json`, predictions and a gallery.

As a stage of the chain (no --model_path) it scores the untrained, the SFT and the DPO model, and the better of the
last two, by validation rows, on blank images too. With --model_path it scores that one model on the sets of --test_datasets.
"""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.base.paths import Run
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument("--model_path", type=Path, help="score this model or adapter alone")
    parser.add_argument(
        "--test_datasets",
        default="",
        help="with --model_path: names with commas; empty: the one it was trained on",
    )
    parser.add_argument(
        "--output", type=Path, help="with --model_path: the JSON to write; default: in results/eval/models/"
    )
    options = parser.parse_args(arguments)
    from workflow_scripts.stages import evaluate

    if path := options.model_path:
        version, mode = flags.run_names(options, path, ("model_version", "mode"))
        tests = flags.comma_separated(options.test_datasets) or flags.run_names(options, path, ("dataset",))
        settings, layout = flags.stage_inputs(options, "evaluate", Run(tests[0], version, mode))
        output = options.output or layout.model_evaluation(path)
        evaluate.model_stage(settings, layout, path, version, mode, tests, output)
    else:
        run = flags.run_of(options)
        settings, layout = flags.stage_inputs(options, "evaluate", run)
        evaluate.stage(settings, layout, run)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
