"""Runs of the demo's matrix on the test cluster under random faults: they end as if nothing had happened.

`python tests/slurm/chaos.py --faults 100` (or `make chaos`) runs them twice: undisturbed, without a cluster, and on the
cluster of cluster.py, where processes, jobs, nodes and Snakemake itself are killed at random, by a seed. Every byte of
weights, answers and scores must be equal, and no step of a training may be computed twice beyond a checkpoint's interval.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml
from cluster import Cluster, Unavailable, cluster, jobs, nodes

ROOT = Path(__file__).resolve().parents[2]
SAVE_STEPS = 2
TRAINING = {
    "batch_size": 4,
    "save_steps": SAVE_STEPS,
    "log_steps": 1,
    "gradient_checkpointing": False,
    "threads": 1,
}
SETTINGS = {
    "datasets": {name: {"reader": name, "embedded": 10} for name in ("slake", "rad", "pathvqa")},
    "models": {version: {mode: {"embedded": True} for mode in ("thinking", "base")} for version in ("4.1v", "4.5v")},
    "sft": {**TRAINING, "max_steps": 12, "lora": {"rank": 8}},
    "preferences": {"max_questions": 6, "max_pairs": 16},
    "dpo": {**TRAINING, "max_steps": 8, "lora": {"rank": 8}},
    "evaluation": {"max_new_tokens": 16, "max_validation_rows": 8, "threads": 1},
    "data": {"threads": 1},
    "tracking": [],
}  # fmt: skip
RUNS = [
    f"{dataset}_{version}_{mode}"
    for mode in ("thinking", "base") for version in ("4.1v", "4.5v") for dataset in ("slake", "rad", "pathvqa")
]  # fmt: skip
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
# Steps are slow enough to be hit, each is written down, and a machine that is gone is known to be after seconds.
SLOW = {"PYTHONPATH": f"{Path(__file__).with_name('slow')}:{ROOT}", "SLOW_STEP": "0.5"}
PAUSE = 4.0  # seconds between two faults, on average
NODE_AWAY = 20.0  # seconds; SLURM knows after ten that a node is gone

logger = logging.getLogger("chaos")


class Workplace:
    """A folder in which the workflow runs."""

    def __init__(self, folder: Path, runs: list[str]) -> None:
        self.folder = folder
        self.targets = [f"results/eval/{run}.json" for run in runs]
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")

    def start(self, *flags: str, **variables: str) -> subprocess.Popen:
        """Start Snakemake, which writes to a log."""
        where = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", *flags]
        with (self.folder / "snakemake.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", *where, "--", *self.targets],
                cwd=self.folder, env={**ENVIRONMENT, **variables}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def digests(self) -> dict[str, str]:
        """What must not depend on faults, by file: weights, pairs, answers, scores."""
        results = self.folder / "results"
        found = {}
        for pattern in (
            "sft/*/*.safetensors",
            "dpo/*/*.safetensors",
            "preferences/**/*.jsonl",
            "eval/*/*.jsonl",
            "eval/*.json",
        ):
            for path in sorted(results.glob(pattern)):
                content = path.read_bytes() if path.suffix == ".safetensors" else _without_costs(path)
                found[str(path.relative_to(results))] = hashlib.sha256(content).hexdigest()
        return found

    def steps(self) -> dict[Path, list[tuple[str, int]]]:
        """(job, step) of each step that each training has computed, in order."""
        return {
            path: [(job, int(step)) for job, step in map(str.split, path.read_text().splitlines())]
            for path in sorted(self.folder.rglob("*.steps"))
        }


def _without_costs(path: Path) -> bytes:
    """The file without what tells when, where and for how long."""

    def cleaned(value):
        if isinstance(value, dict):
            return {
                key: cleaned(each)
                for key, each in value.items()
                if key not in ("seconds", "cost", "made", "date")
            }
        return [cleaned(each) for each in value] if isinstance(value, list) else value

    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return json.dumps([cleaned(json.loads(line)) for line in lines], sort_keys=True).encode()


class Chaos:
    """Faults at random, each written down."""

    def __init__(self, running: Cluster, work: Workplace, seed: int) -> None:
        self.running, self.work, self.random = running, work, random.Random(seed)
        self.done: Counter[tuple[str, str]] = Counter()  # by kind and stage
        self.away: dict[str, float] = {}  # nodes that are lost, and when they come back
        self.main = self._start()

    def _start(self) -> subprocess.Popen:
        flags = ["--profile", str(ROOT / "profiles/slurm"), "--slurm-init-seconds-before-status-checks", "5"]
        return self.work.start(*flags, "--retries", "100", "--latency-wait", "10", **SLOW)

    def until_done(self, faults: int) -> None:
        """Disturb the workflow so often, then let it end; Snakemake is started again whenever it has ended before."""
        kinds: list[Callable[[], str | None]] = [
            *[self.kill_process] * 4, *[self.cancel] * 2, *[self.requeue] * 2, self.lose_node, self.kill_main,
        ]  # fmt: skip
        while self.main.poll() != 0:
            if self.main.poll() is not None:
                logger.info("Snakemake ended with status %s; started again", self.main.returncode)
                self.main = self._start()
            self._bring_back()
            if self.done.total() < faults:
                time.sleep(self.random.expovariate(1 / PAUSE))
                kind = self.random.choice(kinds)
                if stage := kind():
                    self.done[kind.__name__, stage] += 1
                    logger.info("fault %d: %s of %s", self.done.total(), kind.__name__, stage)
            else:
                time.sleep(1)

    def _bring_back(self) -> None:
        for node, when in list(self.away.items()):
            if time.monotonic() > when:
                self.running.start_node(node)
                del self.away[node]

    def _job(self) -> dict[str, str] | None:
        found = [
            job for job in jobs() if job["JobState"] == "RUNNING" and job["WorkDir"] == str(self.work.folder)
        ]
        return self.random.choice(found) if found else None

    def kill_process(self) -> str | None:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            stage = next((word for word in words if word.startswith("workflow_scripts.")), None)
            try:
                if stage and "-m" in words and process.cwd() == str(self.work.folder):
                    found.append((process, stage.removeprefix("workflow_scripts.")))
            except psutil.Error:  # it has just ended
                continue
        if not found:
            return None
        process, stage = self.random.choice(found)
        process.kill()
        return stage

    def cancel(self) -> str | None:
        return self._on_job("scancel")

    def requeue(self) -> str | None:
        return self._on_job("scontrol", "requeue")

    def _on_job(self, *command: str) -> str | None:
        job = self._job()
        if not job or subprocess.run([*command, job["JobId"]], check=False, capture_output=True).returncode:
            return None
        return job["Comment"].removeprefix("rule_").partition("_wildcards_")[0]

    def lose_node(self) -> str | None:
        if self.away:
            return None
        node = self.random.choice(nodes())
        self.running.lose(node)
        self.away[node] = time.monotonic() + NODE_AWAY
        return "all stages"

    def kill_main(self) -> str | None:
        self.main.kill()
        self.main.wait()
        self.main = self._start()
        return "Snakemake"


def computed_twice(steps: list[tuple[str, int]]) -> int:
    """The longest row of steps that an attempt computed although one before had."""
    furthest, again, longest = 0, 0, 0
    for _, step in steps:
        again = again + 1 if step <= furthest else 0
        furthest, longest = max(furthest, step), max(longest, again)
    return longest


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=4, help=f"of {len(RUNS)}")
    parser.add_argument("--load", type=int, default=1, help="other processes that want a core each")
    parser.add_argument(
        "--folder", type=Path, required=True, help="an empty or missing one, on a disk with 5 GB"
    )
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    runs, folder = RUNS[: flags.runs], flags.folder.resolve()

    whole, broken = Workplace(folder / "whole", runs), Workplace(folder / "broken", runs)
    began = time.monotonic()
    if whole.start("--cores", "2").wait():
        raise SystemExit(f"error: the undisturbed run failed; see {whole.folder}/snakemake.log")
    logger.info("undisturbed: %.0f s", time.monotonic() - began)

    began = time.monotonic()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(flags.load)]
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text(encoding="utf-8"))
    asked = [profile["default-resources"], *profile["set-resources"].values()]
    try:
        with cluster(
            sorted({each["slurm_partition"] for each in asked if "slurm_partition" in each})
        ) as running:
            chaos = Chaos(running, broken, flags.seed)
            chaos.until_done(flags.faults)
            submitted = len([job for job in jobs() if job["WorkDir"] == str(broken.folder)])
    except Unavailable as reason:
        raise SystemExit(f"error: {reason}") from None
    finally:
        for process in busy:
            process.kill()

    expected, found = whole.digests(), broken.digests()
    differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    twice = {str(path): computed_twice(steps) for path, steps in broken.steps().items()}
    for (kind, stage), count in sorted(chaos.done.items()):
        print(f"{count:4d} {kind} {stage}")
    print(f"{chaos.done.total()} faults, {submitted} SLURM jobs, {time.monotonic() - began:.0f} s")
    print(f"{len(expected)} files compared, {len(differ)} differ {differ[:10]}")
    print(
        f"{len(twice)} trainings; at most {max(twice.values())} steps in a row computed twice, of {SAVE_STEPS} allowed"
    )
    enough = chaos.done.total() >= flags.faults
    if not enough:
        print("error: the work ended before the faults; ask for more --runs")
    return 0 if enough and not differ and max(twice.values()) <= SAVE_STEPS else 1


if __name__ == "__main__":
    sys.exit(main())
