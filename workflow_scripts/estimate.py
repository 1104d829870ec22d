"""Estimate memory and time of a run's training and name what fits, before anything is downloaded."""

import argparse
import re
import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    parser.add_argument(
        "--gpu", type=size, required=True, metavar="SIZE", help="memory of one card, such as 24GB"
    )
    parser.add_argument("--gpus", type=count, help="how many there are; without it, the fewest that hold it")
    parser.add_argument(
        "--method", choices=["lora", "full"], help="instead of sft.method of the configuration"
    )
    parser.add_argument(
        "--rate", type=rate, help="TFLOP/s of the card's bf16 matrix products; without it an H200's"
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


def size(text: str) -> float:
    """Bytes of a card's memory: 24GB, 80 GiB or 80; cards count in GiB whatever they are called."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of memory such as 24GB")
    return float(found[1]) * 2**30


def count(text: str) -> int:
    """A number of GPUs that batches can be divided among."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs")
    return int(text)


def rate(text: str) -> float:
    """A rate above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate in TFLOP/s")
    return found


if __name__ == "__main__":
    sys.exit(cli.run(main))
