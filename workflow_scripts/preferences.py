"""Collect preference pairs for DPO from train questions: `results/preferences/{run}.jsonl`."""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    parser.add_argument("--sft_model", type=Path, help="sample from this model instead of results/sft/{run}")
    options = parser.parse_args(arguments)
    run = flags.run_of(options)
    settings, layout = flags.stage_inputs(options, "preferences", run)
    from workflow_scripts.stages import preferences

    preferences.stage(settings, layout, run, options.sft_model or layout.trained("sft", run))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
