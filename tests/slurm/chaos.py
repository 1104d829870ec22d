"""Runs of the demo's matrix on the test cluster, under faults drawn by a seed, come to what they come to undisturbed.

`python tests/slurm/chaos.py --faults 100` (`make chaos`): on a busy machine commands are killed, jobs cancelled and put
back into the queue, nodes lost and Snakemake itself killed, in all stages alike. It ends with status 1 where a byte of
the weights, or a row, pair, answer or score is another one than without, where a training repeated more steps than lie
between two of its checkpoints, or where a long one has left out a stage other than the report.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import yaml
from cluster import Cluster, Unavailable, cluster, jobs, nodes
from submitted import ROOT, rule_of, snakemake, start, steps

from workflow_scripts.base.paths import STAGES

EVERY = 3  # steps between two checkpoints
TRAINING = {
    "gpus": 1, "threads": 1, "batch_size": 4, "save_steps": EVERY, "log_steps": 1, "gradient_checkpointing": False,
    "lora": {"rank": 4, "dropout": 0.1},
}  # fmt: skip
CONFIGURATION = {
    "tracking": [],
    "data": {"threads": 1},
    "sft": {**TRAINING, "max_steps": 12},
    "preferences": {"max_questions": 6, "samples": 1},
    "dpo": {**TRAINING, "max_steps": 8},
    "evaluation": {"threads": 1, "max_new_tokens": 24, "max_validation_rows": 8},
}
SETS = ("slake", "rad", "pathvqa")
# Each step is slow enough to be hit, and written down; a machine that is gone is known for it after seconds.
SLOW = {"PYTHONPATH": f"{ROOT}/tests/slurm/slow:{ROOT}", "SLOW_STEP": "0.5", "SLOW_SAVE": "0.5"}
KINDS = ("kill", "kill", "cancel", "cancel", "requeue", "requeue", "lose a node", "kill Snakemake")
LONG = 100  # faults, of which some must befall each stage
PAUSES = (2.0, 12.0)  # seconds between two faults
AWAY = 20  # seconds; SLURM knows after ten that a node is gone
MADE = (
    "data/*/*.jsonl", "preferences/*.jsonl", "sft/*/*.safetensors", "dpo/*/*.safetensors", "answers/*/*.jsonl", "eval/*/*.jsonl",
    "eval/*.json",
)  # fmt: skip
# Keys of JSON objects: when it was, how long it took, and whether somebody was at the code meanwhile.
NOT_COMPARED = {"seconds", "cost", "made", "date", "dirty"}


class Storm:
    """A workflow on the cluster, and what has befallen it: (kind, stage) of each fault."""

    def __init__(self, folder: Path, running: Cluster, seed: int, pauses: tuple[float, float]) -> None:
        self.folder, self.running, self.random, self.pauses = folder, running, random.Random(seed), pauses
        self.happened: Counter[tuple[str, str]] = Counter()
        self.next: list[str] = []  # kinds of faults, dealt like cards
        self.workflow = self.begin()

    def begin(self) -> subprocess.Popen:
        """Start Snakemake as a person would after one that was killed."""
        where = ("--snakefile", ROOT / "Snakefile", "--profile", ROOT / "profiles/slurm")
        status, said = snakemake(self.folder, *where, "--unlock")
        if status:
            raise RuntimeError(said)
        return start(self.folder, *where, output=self.folder / "said.txt", **SLOW)

    def rage(self, faults: int, seconds: float) -> None:
        """Let `faults` faults happen, and the workflow come to its end within `seconds`."""
        until = time.monotonic() + seconds
        due = time.monotonic() + self.random.uniform(*self.pauses)
        try:
            while self.workflow.poll() != 0:
                if time.monotonic() > until:
                    raise TimeoutError(f"not done after {seconds:.0f} s; see {self.folder}/said.txt")
                # What was tried as often as the profile says is for a person to start again.
                if self.workflow.poll() is not None:
                    self.workflow = self.begin()
                time.sleep(0.5)
                if self.happened.total() == faults or time.monotonic() < due:
                    continue
                self.next = self.next or self.random.sample(KINDS, len(KINDS))
                kind = self.next.pop()
                if (fault := self.befall(kind)) is None:  # there was nothing to hit: later
                    self.next.insert(0, kind)
                else:
                    self.happened[fault] += 1
                    due = time.monotonic() + self.random.uniform(*self.pauses)
                    print(
                        f"{time.strftime('%T')} {self.happened.total():4d}: {' of '.join(fault)}", flush=True
                    )
        finally:
            self.workflow.kill()
            self.workflow.wait()

    def befall(self, kind: str) -> tuple[str, str] | None:
        """Let a fault happen, in a stage that has seen few; what it was, or None where there was nothing to hit."""
        if kind == "kill Snakemake":
            if self.workflow.poll() is not None:  # it has ended
                return None
            self.workflow.kill()
            self.workflow.wait()
            self.workflow = self.begin()
            return kind, "all"
        if kind == "lose a node":
            node = self.random.choice(nodes())
            self.running.lose(node)
            time.sleep(AWAY)
            self.running.start_node(node)
            return kind, "all"
        found = dict(self.commands() if kind == "kill" else self.running_jobs())
        if not found:
            return None
        seen = Counter(stage for (_, stage), count in self.happened.items() for _ in range(count))
        hit = min(found, key=lambda one: (seen[found[one]], self.random.random()))
        if kind == "kill":
            try:
                os.kill(int(hit), signal.SIGKILL)
            except ProcessLookupError:
                return None
        else:
            command = {"cancel": ["scancel"], "requeue": ["scontrol", "requeue"]}[kind]
            if subprocess.run([*command, hit], check=False, capture_output=True).returncode:
                return None
        return kind, found[hit]

    def running_jobs(self) -> Iterator[tuple[str, str]]:
        """(number, rule) of each job that runs."""
        for job in jobs():
            if job["JobState"] == "RUNNING" and job["WorkDir"] == str(self.folder):
                yield job["JobId"], rule_of(job)

    def commands(self) -> Iterator[tuple[str, str]]:
        """(process, stage) of each stage's command that runs in a job."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            module = words[2] if words[1:2] == ["-m"] and len(words) > 2 else ""
            try:
                if module.startswith("workflow_scripts.") and "SLURM_JOB_ID" in process.environ():
                    yield str(process.pid), module.removeprefix("workflow_scripts.")
            except psutil.Error:  # it has ended
                continue


def timeless(value: Any) -> Any:
    """A value of a JSON file without what differs between two runs that did the same."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in NOT_COMPARED}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def content(file: Path) -> Any:
    """What must be the same in both runs."""
    if file.suffix == ".safetensors":
        return file.read_bytes()
    lines = file.read_text(encoding="utf-8")
    return timeless(
        [json.loads(line) for line in (lines.splitlines() if file.suffix == ".jsonl" else [lines])]
    )


def differences(quiet: Path, stormy: Path) -> Iterator[str]:
    """What is not the same in both folders, a line each."""
    for pattern in MADE:
        one, other = (
            {file.relative_to(folder): file for file in folder.glob(f"results/{pattern}")}
            for folder in (quiet, stormy)
        )
        if not one:
            yield f"{pattern}: there is none"
        for name in sorted(one.keys() | other.keys()):
            if name not in one or name not in other:
                yield f"{name}: only in one of them"
            elif content(one[name]) != content(other[name]):
                yield f"{name}: not the same"


def repetitions(folder: Path) -> dict[str, int]:
    """The most steps that each training has repeated after one fault."""
    found = {}
    for file in sorted((folder / "results/checkpoints").glob("*/*.steps")):
        found[f"{file.parent.name} {file.stem}"] = max(
            (before - after + 1 for before, after in itertools.pairwise(steps(file))), default=0
        )
    return found


def prepare(folder: Path, sets: int, modes: list[str], **changes: Any) -> None:
    """Write the configuration of a folder to run in."""
    folder.mkdir(parents=True)
    configuration = {
        "datasets": {name: {"reader": name, "embedded": 12} for name in SETS[:sets]},
        "models": {"4.1v": {mode: {"embedded": True} for mode in modes}},
        **CONFIGURATION,
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")


def soak(
    running: Cluster, root: Path, faults: int, seed: int, seconds: float, pauses: tuple[float, float] = PAUSES
) -> list[str]:
    """Run what stands in `root`/quiet, and in `root`/stormy under faults; what is wrong, a line each."""
    quiet, stormy = root / "quiet", root / "stormy"
    began = time.monotonic()
    status, said = snakemake(quiet, "--snakefile", ROOT / "Snakefile", "--executor", "local", "--cores", "2")
    if status:
        return [said]
    print(
        f"without faults, by the two cores of this machine alone: {time.monotonic() - began:.0f} s",
        flush=True,
    )
    began = time.monotonic()
    storm = Storm(stormy, running, seed, pauses)
    storm.rage(faults, seconds)
    submitted = [job for job in jobs() if job["WorkDir"] == str(stormy)]
    repeated = repetitions(stormy)
    for (kind, stage), count in sorted(storm.happened.items()):
        print(f"{count:5d} times: {kind} of {stage}")
    print(f"{storm.happened.total()} faults, {len(submitted)} SLURM jobs, {time.monotonic() - began:.0f} s")
    print(f"steps repeated after a fault, of {EVERY} allowed:", *(f"{n} {k};" for k, n in repeated.items()))
    wrong = [*differences(quiet, stormy)]
    wrong += [f"{name}: {steps} steps were repeated" for name, steps in repeated.items() if steps > EVERY]
    if not repeated:
        wrong.append("no step was written down")
    if faults >= LONG:
        hit = {stage.replace("download_model", "download") for _, stage in storm.happened}
        # The report is made once, after all else, in seconds.
        missed = set(STAGES) - {"report"} - hit
        wrong += [f"{stage}: nothing has befallen it" for stage in sorted(missed)]
    if storm.happened.total() < faults:
        wrong.append("all was done before so many faults had happened: ask for a larger matrix")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", type=int, default=2, help=f"so many of {', '.join(SETS)}")
    parser.add_argument("--modes", nargs="+", default=["base", "thinking"])
    parser.add_argument("--load", type=int, default=1, help="processes beside it that each want a core")
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to run, which stays; otherwise a temporary one",
    )
    flags = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums come in the same order on every node
    root = (flags.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    if any((root / name).exists() for name in ("quiet", "stormy")):
        parser.error(f"{root} holds an earlier soak; name another folder")
    for name in ("quiet", "stormy"):
        prepare(root / name, flags.sets, flags.modes)
    with ExitStack() as stack:
        for _ in range(flags.load):
            stack.callback(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
        try:
            running = stack.enter_context(cluster(["cpu", "gpu"]))
            wrong = soak(running, root, flags.faults, flags.seed, flags.hours * 3600)
        except (Unavailable, TimeoutError, RuntimeError) as reason:
            wrong = [f"error: {reason}"]
    if wrong:
        wrong.append(f"what it left is in {root}")
    elif not flags.folder:
        shutil.rmtree(root)
    print(
        "\n".join(wrong) or "weights are the same byte for byte, and so are rows, pairs, answers and scores"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
