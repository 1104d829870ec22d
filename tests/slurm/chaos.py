"""All stages of two runs on the test cluster, under faults drawn by a seed, come to what they come to undisturbed.

`python tests/slurm/chaos.py --faults 100`: jobs and Snakemake are killed, jobs cancelled and put back into the queue,
nodes lost, until so many faults have happened or all is done. It ends with status 1 where a byte of the weights, answers
or scores is another one, or where a step was computed again from before the last checkpoint.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from cluster import Cluster, cluster, jobs, nodes
from submitted import ROOT, snakemake, start

EVERY = 3  # steps between checkpoints
TRAINING = {
    "gpus": 1, "threads": 1, "max_steps": 12, "batch_size": 4, "save_steps": EVERY, "log_steps": 1,
    "gradient_checkpointing": False, "lora": {"rank": 4, "dropout": 0.1},
}  # fmt: skip
CONFIGURATION = {
    "datasets": {name: {"reader": name, "embedded": 12} for name in ("slake", "rad")},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
    "sft": TRAINING,
    "dpo": TRAINING,
    "preferences": {"max_questions": 4, "samples": 1},
    "evaluation": {
        "threads": 1,
        "max_new_tokens": 24,
        "blank_image": False,
        "max_validation_rows": 8,
    },
}
SLOW = {"PYTHONPATH": str(ROOT / "tests/slurm/slow"), "SLOW_STEP": "0.5"}
MADE = ("sft/*/*.safetensors", "dpo/*/*.safetensors", "answers/*/*.jsonl", "eval/*/predictions.jsonl")
KINDS = ("kill", "scancel", "requeue", "node", "snakemake")
PAUSE = (5.0, 25.0)  # seconds between two faults
PATIENCE = 3600 * 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, cluster(["cpu", "gpu"]) as running:
        quiet, stormy = Path(name) / "quiet", Path(name) / "stormy"
        for folder in (quiet, stormy):
            folder.mkdir()
            (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
        status, said = snakemake(
            quiet, "--snakefile", ROOT / "Snakefile", "--executor", "local", "--cores", "2"
        )
        if status:
            print(said)
            return status
        happened = storm(stormy, running, options.faults, random.Random(options.seed))
        print(f"{len(happened)} faults: {' '.join(happened)}", flush=True)
        found = [*others(quiet, stormy), *computed_again(stormy)]
        print("\n".join(found) or "every byte is the same", flush=True)
        return min(len(found), 1)


def storm(folder: Path, running: Cluster, faults: int, choice: random.Random) -> list[str]:
    """Run the workflow to its end under `faults` faults; returns what happened."""
    happened: list[str] = []
    workflow = begin(folder)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(choice.uniform(*PAUSE))
        if workflow.poll() is not None:
            if workflow.returncode == 0:
                return happened
            # What was retried as often as the profile says is for a person to start again.
            workflow = begin(folder)
        elif len(happened) < faults:
            kind = choice.choice(KINDS)
            if kind == "snakemake":
                workflow.kill()
                workflow.wait()
                workflow = begin(folder)
            elif not befall(kind, running, choice):
                continue
            happened.append(kind)
            print(f"{len(happened)}: {kind}", flush=True)
    raise TimeoutError(f"not done after {len(happened)} faults")


def begin(folder: Path) -> subprocess.Popen:
    """Start Snakemake, also after one that was killed."""
    where = ("--snakefile", ROOT / "Snakefile", "--profile", ROOT / "profiles/slurm")
    snakemake(folder, *where, "--unlock")
    return start(folder, *where, output=folder / "said", **SLOW)


def befall(kind: str, running: Cluster, choice: random.Random) -> bool:
    """Let a fault happen to one of the running jobs, or to a node; whether there was one."""
    if kind == "node":
        node = choice.choice(nodes())
        running.lose(node)
        time.sleep(40)  # until SLURM has noticed
        running.start_node(node)
        return True
    if kind == "kill":
        commands = [process for process in psutil.process_iter(["cmdline"]) if is_stage(process)]
        if commands:
            choice.choice(commands).send_signal(signal.SIGKILL)
        return bool(commands)
    numbers = [job["JobId"] for job in jobs() if job["JobState"] == "RUNNING"]
    if numbers:
        asked = {"scancel": ["scancel"], "requeue": ["scontrol", "requeue"]}[kind]
        subprocess.run([*asked, choice.choice(numbers)], check=False)
    return bool(numbers)


def is_stage(process: psutil.Process) -> bool:
    """Whether it is the command of a stage, in a job of this cluster."""
    line = process.info["cmdline"] or []
    module = line[2] if line[1:2] == ["-m"] and len(line) > 2 else ""
    try:
        here = "SLURM_JOB_ID" in process.environ()
    except psutil.Error:
        return False
    return here and module.startswith("workflow_scripts.")


def others(quiet: Path, stormy: Path) -> list[str]:
    """What is not the same in both folders."""
    found = []
    for pattern in MADE:
        left, right = (
            {path.relative_to(folder): path for path in folder.glob(f"results/{pattern}")}
            for folder in (quiet, stormy)
        )
        found += [f"{name}: only in one" for name in left.keys() ^ right.keys()]
        found += [
            f"{name}: other bytes"
            for name in left.keys() & right.keys()
            if left[name].read_bytes() != right[name].read_bytes()
        ]
        if not left:
            found.append(f"{pattern}: nothing")
    return found


def computed_again(folder: Path) -> list[str]:
    """Trainings that went back by more than the steps between two checkpoints."""
    found = []
    for file in (folder / "results/checkpoints").glob("*/*.steps"):
        steps = [int(line.split()[1]) for line in file.read_text().splitlines()]
        found += [
            f"{file.stem}: step {after} after {before}"
            for before, after in itertools.pairwise(steps)
            if before - after >= EVERY + 1
        ]
    return found


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
