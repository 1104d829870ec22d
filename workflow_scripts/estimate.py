"""Estimate memory and time of a run's training and name what fits, before anything is downloaded."""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    parser.add_argument(
        "--gpu",
        type=flags.memory_size,
        required=True,
        metavar="SIZE",
        help="memory of one card, such as 24GB",
    )
    parser.add_argument(
        "--gpus", type=flags.number_of("GPUs"), help="how many there are; without it, the fewest that hold it"
    )
    parser.add_argument(
        "--method", choices=["lora", "full"], help="instead of sft.method of the configuration"
    )
    parser.add_argument(
        "--rate", type=flags.rate, help="TFLOP/s of the card's bf16 matrix products; without it an H200's"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="the settings of what fits, as YAML")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    run = flags.run_of(options)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import estimate

    estimate.command(
        settings,
        layout,
        run,
        options.gpu,
        options.gpus,
        options.rate,
        options.method,
        options.json,
        options.write,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
