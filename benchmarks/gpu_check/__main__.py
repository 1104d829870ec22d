"""Check and measure on a GPU, within 8 minutes: print a table and write JSON."""

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path

from transformers.utils import logging as transformers_logging

from benchmarks.gpu_check import (
    attention,
    environment,
    exactness,
    extras,
    generation,
    resume,
    runner,
    serving,
    variants,
)
from benchmarks.gpu_check.runner import Check
from benchmarks.gpu_check.shapes import FULL, SMALL, Base, Shape
from benchmarks.gpu_check.training import Bench

SECONDS = 465  # of the checks together; imports come before


def checks(shape: Shape) -> list[Check]:
    """All checks, the most important first, with the seconds that each has at most."""
    bench = Bench(Base(), shape)
    return [
        Check("environment", 30, partial(environment.check, shape)),
        Check("attention", 60, partial(attention.check, shape)),
        Check("exactness", 50, partial(exactness.check, shape)),
        Check("training", 200, bench.check),
        Check("variants", 150, partial(variants.check, bench)),
        Check("profile", 45, partial(variants.profile, bench)),
        Check("generation", 45, partial(generation.check, bench)),
        Check("QLoRA", 35, partial(extras.qlora, bench)),
        Check("resumption", 25, resume.check),
        Check("serving", 120, partial(serving.check, bench)),
    ]


def main() -> int:
    """0 where every check ran or was skipped, 1 where one failed or was stopped; goals do not count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a small shape, which a CPU can do in a minute")
    parser.add_argument("--json", type=Path, default=Path("results/gpu_check.json"), help="what is written")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="these checks alone")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    started = time.monotonic()
    chosen = [
        check
        for check in checks(SMALL if options.small else FULL)
        if not options.only or check.name in options.only
    ]
    found = runner.run(chosen, SECONDS, options.json)
    print(runner.table(found))
    print(f"{time.monotonic() - started:.0f} s; written to {options.json}")
    return int(any(findings.state in ("failed", "stopped") for findings in found))


if __name__ == "__main__":
    sys.exit(main())
