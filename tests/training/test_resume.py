"""Trainings that are killed, stopped or damaged, with the real commands, end as if nothing had happened."""

import copy
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forked
import psutil
import pytest
import yaml
from dialogues import MODE, draw_images, some_records
from PIL import Image

from workflow_scripts import sft
from workflow_scripts.base import cli, files, versions
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training import checkpoints, launch, progress

ROOT = Path(__file__).resolve().parents[2]
STEPS = 10  # at least
TRAINING = {
    "gpus": 0, "batch_size": 4, "images_per_step": 1, "micro_batch_size": 2, "epochs": 2, "learning_rate": 1e-3, "save_steps": 2,
    "log_steps": 1, "gradient_checkpointing": False, "lora": {"rank": 4, "dropout": 0.1},
}  # fmt: skip
SETTINGS = {
    "datasets": {"slake": {"reader": "slake", "embedded": 20}},
    "sft": TRAINING,
    "dpo": TRAINING,
    "tracking": [],
}


# DeepSpeed on a CPU looks for another library than gloo by itself.
WITH_GLOO = """
import runpy, sys
import deepspeed
deepspeed.init_distributed("gloo")
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Workplace:
    """A folder in which sft and dpo find all that they read."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.run = folder, Run("slake", version, MODE)
        self.layout = Layout(folder / "results")
        self.data = self.layout.split(self.run, "train")
        self.data.parent.mkdir(parents=True)
        records = some_records(version, draw_images(self.data.parent), questions=6)
        write = VERSIONS[version].answer_format(MODE).write
        pairs = [
            {
                **record,
                "images": [f"../data/{self.run}/{name}" for name in record["images"]],
                "messages": record["messages"][:-1],
                "chosen": record["messages"][-1]["content"],
                "rejected": write(f"not {number}"),
            }
            for number, record in enumerate(records)
        ]
        files.write_jsonl(self.data, records)
        files.write_jsonl(self.layout.preferences(self.run), pairs)
        standins.save(VERSIONS[version], MODE, self.layout.model(version, MODE))
        self.configure()

    def configure(self, **changes) -> None:
        """Write config.yaml, with `changes` of both stages."""
        self.strategy = changes.get("strategy", "ddp")
        stages = {stage: {**TRAINING, **changes} for stage in ("sft", "dpo")}
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **stages}))

    def flags(self, *more: str) -> list[str]:
        names = ["--dataset", "slake", "--model_version", self.run.model_version, "--mode", MODE]
        return [*names, "--config", str(self.folder / "config.yaml"), *more]

    def start(self, stage: str, processes: int, *more: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        module, flags = f"workflow_scripts.{stage}", self.flags(*more)
        command = [sys.executable, "-m", module, *flags]
        if self.strategy.startswith("zero"):
            (self.folder / "with_gloo.py").write_text(WITH_GLOO)
            environment |= {"PYTHONPATH": f"{ROOT}:{self.folder}", "DS_ACCELERATOR": "cpu"}
            module, flags = "with_gloo", [module, *flags]
        if processes > 1:
            command, _ = launch.launcher(module, flags, processes, 1, environment)
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def interrupted(self, stage: str, processes: int, step: int, number: int, *more: str) -> tuple[int, str]:
        """Send signal `number` once `step` or a later one is done; the status and what was said."""
        process = self.start(stage, processes, *more)
        said = []
        for line in process.stdout:
            said.append(line)
            done = re.search(r" step (\d+)/", line)
            if done and int(done[1]) >= step:
                break
        else:
            pytest.fail("".join(said))
        killed = number == signal.SIGKILL
        family = psutil.Process(process.pid).children(recursive=True) if killed else []
        process.send_signal(number)
        for child in family:
            child.kill()
        rest, _ = process.communicate(timeout=400)
        return process.returncode, "".join(said) + rest

    def finished(self, stage: str, processes: int, *more: str) -> str:
        process = self.start(stage, processes, *more)
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said
        return said

    def kept(self, stage: str) -> list[int]:
        """The steps of the checkpoints."""
        folder = self.layout.checkpoints(stage, self.run)
        return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))

    def weights(self, stage: str) -> bytes:
        (file,) = self.layout.trained(stage, self.run).glob("*.safetensors")
        return file.read_bytes()


@pytest.fixture
def workplace(tmp_path):
    return lambda version, name="work": Workplace(tmp_path / name, version)


KILL, TERM, WARN = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "version", "method", "processes", "signals"),
    [
        ("sft", "4.1v", "lora", 1, [KILL, WARN, KILL]),
        ("sft", "4.5v", "full", 1, [KILL, TERM]),
        ("dpo", "4.1v", "lora", 1, [TERM, KILL, KILL]),
        ("sft", "4.1v", "lora", 2, [KILL, TERM, WARN]),
        ("dpo", "4.5v", "lora", 2, [KILL, KILL]),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights(
    workplace, stage, version, method, processes, signals
):
    whole, broken = workplace(version, "whole"), workplace(version, "broken")
    flags = ["--method", method]
    if stage == "dpo":  # on an adapter, as in the chain: the reference is a second, frozen one
        whole.finished("sft", 1, *flags)
        shutil.copytree(whole.layout.root / "sft", broken.layout.root / "sft")
    whole.finished(stage, processes, *flags)

    # Killed before its first checkpoint a training starts anew; the last signal always finds one.
    steps = [*sorted(random.sample(range(1, 4), len(signals) - 1)), random.randint(4, STEPS - 4)]
    print("interrupted after the steps", steps)
    for step, number in zip(steps, signals, strict=True):
        status, said = broken.interrupted(stage, processes, step, number, *flags)
        left = broken.kept(stage)
        assert len(left) <= 3
        if number == KILL:
            assert status == -KILL
        else:
            name = signal.Signals(number).name
            told = rf"error: stopped by {name} after step {left[-1]} of \d+, which is saved"
            assert re.search(told, said), said
            assert processes > 1 or status == 128 + number
            assert "Traceback" not in said or processes > 1
    assert "resuming from step" in broken.finished(stage, processes, *flags)
    assert broken.weights(stage) == whole.weights(stage)
    assert not broken.layout.checkpoints(stage, broken.run).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "version", "method"), [("zero3", "4.5v", "full"), ("fsdp", "4.1v", "lora")]
)
def test_a_model_that_processes_share_is_resumed_whole(workplace, strategy, version, method):
    whole, broken = workplace(version, "whole"), workplace(version, "broken")
    for work in (whole, broken):
        work.configure(strategy=strategy, method=method)
    whole.finished("sft", 2)
    assert broken.interrupted("sft", 2, 4, KILL)[0] == -KILL
    assert "resuming from step" in broken.finished("sft", 2)
    assert broken.weights("sft") == whole.weights("sft")


@pytest.mark.slow
def test_two_processes_that_find_it_done_train_nothing(workplace):
    work = workplace("4.1v")
    work.configure(max_steps=1)
    assert " step 1/1 " in work.finished("sft", 2)
    before, metrics = work.weights("sft"), work.layout.trained("sft", work.run) / "metrics.json"
    metrics.unlink()
    said = work.finished("sft", 2)
    assert said.count("trained already") == 1 and " step " not in said
    assert work.weights("sft") == before and metrics.is_file()
    assert not list((work.folder / "results").rglob("*.lock"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Workplace:
    """A workplace whose SFT was killed after step 5, with checkpoints of the steps 2 and 4."""
    work = Workplace(tmp_path_factory.mktemp("stopped") / "work", "4.1v")
    process = forked.copied(_train_and_die, work.folder, work.flags())
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return work


def _train_and_die(folder: Path, flags: list[str]) -> None:
    ends = progress.Progress.on_step_end

    def dies(self, args, state, control, **kwargs) -> None:
        ends(self, args, state, control, **kwargs)
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    progress.Progress.on_step_end = dies
    os.chdir(folder)
    cli.run(sft.main, flags)


@pytest.fixture
def go_on(stopped, tmp_path, monkeypatch, caplog):
    """Start a copy of `stopped` again, in this process; returns what it says."""

    def start(change) -> str:
        folder = tmp_path / "work"
        shutil.copytree(stopped.folder, folder)
        monkeypatch.chdir(folder)
        work = copy.copy(stopped)
        work.folder, work.layout = folder, Layout(folder / "results")
        work.data = work.layout.split(work.run, "train")
        assert work.kept("sft") == [2, 4]
        change(work)
        with caplog.at_level(logging.INFO):
            assert cli.run(sft.main, work.flags()) == 0
        return caplog.text

    return start


def newest(work: Workplace) -> Path:
    return work.layout.checkpoints("sft", work.run) / "checkpoint-4"


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            lambda work: shorten(newest(work) / "optimizer.pt"), id="shortened", marks=pytest.mark.slow
        ),
        pytest.param(lambda work: spoil(newest(work) / "adapter_model.safetensors"), id="spoilt"),
        pytest.param(
            lambda work: (newest(work) / "rng_state.pth").unlink(), id="missing", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda work: shorten(newest(work) / checkpoints.MANIFEST),
            id="manifest shortened",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda work: (newest(work) / checkpoints.MANIFEST).unlink(), id="no manifest"),
    ],
)
def test_the_one_before_a_torn_checkpoint_is_resumed(go_on, damage):
    said = go_on(damage)
    assert "checkpoint-4 is not whole; removed" in said and "resuming from step 2" in said


def test_without_damage_the_newest_is_resumed(go_on):
    said = go_on(lambda work: None)
    assert "resuming from step 4" in said and "afresh" not in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda work: work.configure(learning_rate=2e-3), "settings", id="parameter"),
        pytest.param(
            lambda work: files.write_jsonl(work.data, list(files.read_jsonl(work.data))[:-1]),
            "data",
            id="dataset",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda work: spoil(work.layout.model("4.1v", MODE) / "model.safetensors"),
            "base_model",
            id="model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda work: Image.new("RGB", (112, 112)).save(work.data.parent / "0.png"), "images", id="image"
        ),
    ],
)
def test_what_changed_starts_afresh_and_says_so(go_on, change, named):
    said = go_on(change)
    assert f"starting afresh: {named} changed since the checkpoints in " in said and "resuming" not in said
    assert "step 1/" in said


def test_another_version_of_the_stage_starts_afresh(go_on, monkeypatch):
    monkeypatch.setitem(versions.RESULTS, "sft", versions.RESULTS["sft"] + 1)
    assert "starting afresh: version changed since the checkpoints in " in go_on(lambda work: None)


def test_a_setting_of_the_data_that_changes_no_row_goes_on(go_on):
    def change(work):
        with open(work.folder / "config.yaml", "a") as opened:
            opened.write("data: {decode_images: false, max_tokens: 4000}\n")

    assert "resuming from step 4" in go_on(change)


def test_another_number_of_log_steps_goes_on(go_on):
    assert "resuming from step 4" in go_on(lambda work: work.configure(log_steps=2))
