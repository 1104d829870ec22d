"""How long Snakemake takes to plan a large study: `python -m benchmarks.plan --sets 52` has 416 runs, eight to a set.

The plan is made three times, in a folder of its own; the last line is JSON.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def measured(sets: int) -> dict[str, float]:
    """Jobs, and the seconds of the fastest of three plans: by the clock and of CPU."""
    datasets = {f"set{number}": {"reader": "slake", "embedded": 12} for number in range(sets)}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--configfile",
        "many.json",
    ]
    with tempfile.TemporaryDirectory() as name:
        Path(name, "many.json").write_text(json.dumps({"datasets": datasets}), encoding="utf-8")
        tries = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.monotonic()
            done = subprocess.run(
                [*command, "--dry-run", "--quiet", "rules"],
                cwd=name,
                capture_output=True,
                text=True,
                check=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            tries.append((time.monotonic() - start, cpu))
    (jobs,) = re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.M)[:1]
    return {"runs": 8 * sets, "jobs": int(jobs), "seconds": min(tries)[0], "cpu_seconds": min(tries)[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=52)
    found = measured(parser.parse_args().sets)
    print(
        f"{found['runs']} runs, {found['jobs']} jobs: {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of CPU"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
