"""Several processes on a CPU train to the losses of one."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dialogues import MODE, draw_images
from safetensors.torch import load_file

from benchmarks.common import WORDS
from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import reading, text
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.trainers.dpo import kept_reference, save_reference

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("sft", "dpo")
# accelerate 1.15 leaves FSDP to GPUs and would train as by DDP, though torch divides on a CPU too.
FSDP_ON_CPU = """
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

make = AcceleratorState.__init__

def divided(self, *args, **kwargs):
    make(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin") or self.__dict__.get("fsdp_plugin")
    if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        if self._mixed_precision != "no":
            plugin.set_mixed_precision(self._mixed_precision)
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin

AcceleratorState.__init__ = divided
"""
# Trains both stages; DeepSpeed on a CPU looks for another library than gloo by itself.
WORKER = (
    FSDP_ON_CPU
    + """
import sys
from pathlib import Path
from accelerate import PartialState
from workflow_scripts.configuration import reading
from workflow_scripts.configuration.settings import Config
from workflow_scripts.stages import dpo
from workflow_scripts.stages import sft
from workflow_scripts.base.paths import Layout, Run

strategy, version = sys.argv[1:]
if strategy.startswith("zero"):
    import deepspeed
    deepspeed.init_distributed("gloo")
settings, layout, run = reading.load([Path("config.yaml")]), Layout(Path("results")), Run("set", version, "thinking")
model = layout.model(version, "thinking")
sft.stage(settings, layout, run, model)
PartialState().wait_for_everyone()  # the first process writes the result
dpo.stage(settings, layout, run, layout.trained("sft", run) if settings.sft.method == "lora" else model)
"""
)


def train(folder: Path, strategy: str, version: str, processes: int, **settings) -> dict[str, list[float]]:
    """The losses of SFT, and of DPO of its result, in `folder`.

    Every optimiser step takes all 16 rows in four batches, four questions on each of three images and four without
    an image, so that the losses do not depend on which process runs which.
    """
    run, layout = Run("set", version, MODE), Layout(folder / "results")
    write = VERSIONS[version].answer_format(MODE).write
    standins.save(VERSIONS[version], MODE, layout.model(version, MODE))
    layout.data(run).mkdir(parents=True)
    images = [[name] for name in draw_images(layout.data(run))] + [[]]
    records = [
        {
            "id": f"{number}-{word}",
            "images": shown,
            "messages": [
                {"role": "user", "content": "<image>" * len(shown) + f"is the {word} {number}"},
                {"role": "assistant", "content": write(word, f"see {number}")},
            ],
        }
        for number, shown in enumerate(images)
        for word in WORDS[:4]
    ]
    files.write_jsonl(layout.split(run, "train"), records)
    pairs = [
        {
            **record,
            "images": [f"../data/{run}/{name}" for name in record["images"]],
            "messages": record["messages"][:1],
            "chosen": record["messages"][1]["content"],
            "rejected": write("not " + record["id"], "see"),
        }
        for record in records
    ]
    files.write_jsonl(layout.preferences(run), pairs)
    common = {
        "gpus": 0, "strategy": strategy, "epochs": 3, "batch_size": 16, "images_per_step": 1, "micro_batch_size": 4,
        "log_steps": 1, "save_steps": 2,
        "learning_rate": 1e-3, "warmup": 0.0, "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, **settings,
    }  # fmt: skip
    weighted = common | {"loss_weights": {"thought": 0.3}}  # whose sum is one over all processes
    files.write_text(
        folder / "config.yaml",
        text.to_yaml(reading.validate({"sft": weighted, "dpo": common, "tracking": []}, "")),
    )
    start(folder, WORKER, processes, strategy, version)
    metrics = {stage: files.read_json(layout.trained(stage, run) / "metrics.json") for stage in STAGES}
    return {stage: [point["loss"] for point in metrics[stage]["curve"]] for stage in STAGES}


def start(folder: Path, worker: str, processes: int, *arguments: str) -> None:
    """Run `worker` in several processes of `folder`."""
    (folder / "worker.py").write_text(worker, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), "worker.py", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:]


CASES = {
    "4.1v": {"method": "lora", "vision_cache_gb": 1},
    # The tower trains, and runs for the batch of text alone on one process, as it does for images on the other.
    "4.1v full": {"method": "full", "freeze_vision": False},
    # Room for the features of one image: a divided tower then runs for all, or processes would wait for each other.
    "4.5v": {"method": "lora", "vision_cache_gb": 1e-5},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The losses of one process, by case."""
    known: dict[str, dict] = {}

    def losses(case: str) -> dict[str, list[float]]:
        if case not in known:
            folder = tmp_path_factory.mktemp("alone")
            known[case] = train(folder, "ddp", case.split()[0], processes=1, **CASES[case])
        return known[case]

    return losses


@pytest.mark.parametrize(
    ("strategy", "case"),
    [
        ("ddp", "4.1v full"),
        ("zero2", "4.1v"),
        ("zero3", "4.1v"),
        ("zero3", "4.1v full"),
        ("zero3", "4.5v"),
        ("fsdp", "4.1v"),
        ("fsdp", "4.1v full"),
    ],
)
def test_two_processes_train_as_one(alone, tmp_path, strategy, case):
    found = train(tmp_path, strategy, case.split()[0], processes=2, **CASES[case])
    for stage, losses in alone(case).items():
        assert len(losses) == 3 and losses[0] != losses[2]
        assert found[stage] == pytest.approx(losses, abs=1e-4), stage
    if (
        CASES[case].get("vision_cache_gb") == 1
    ):  # each process has computed the features of its share of the images
        assert len(list(tmp_path.glob("results/features/*/*.safetensors"))) == 2
    assert not list(tmp_path.glob("results/checkpoints/*/.*.shared"))
    for weights in tmp_path.glob("results/sft/*/*.safetensors"):
        assert all(tensor.numel() for tensor in load_file(weights).values())


def test_two_processes_go_on_with_a_reference_that_was_broken_off(tmp_path):
    """All that is left is of one of them, and the other must not be waited for."""
    train(tmp_path, "ddp", "4.1v", processes=2, **CASES["4.1v"])
    (file,) = tmp_path.glob("results/preferences/*.reference/*.safetensors")
    whole = file.read_bytes()
    values = kept_reference(file)
    for side in values.values():
        side[0] = torch.nan
    save_reference(file, values)
    assert file.read_bytes() != whole
    for done in ("dpo", "checkpoints/dpo"):
        shutil.rmtree(tmp_path / "results" / done)
    start(tmp_path, WORKER, 2, "ddp", "4.1v")
    assert file.read_bytes() == whole


LOADER = (
    FSDP_ON_CPU
    + """
import sys
from pathlib import Path
from safetensors.torch import load_file
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training import model, strategies
from transformers import TrainingArguments

strategy, path = sys.argv[1], Path(sys.argv[2])
device = TrainingArguments("kept", use_cpu=True, **strategies.arguments(strategy)).device
loaded, _ = model.load(model.start(path, Sft(gpus=0, strategy=strategy, method="full")), Sft(gpus=0, method="full"))
kept = load_file(path / "model.safetensors")
read = sum(value.equal(kept[name]) for name, value in loaded.state_dict().items())
with strategies.whole(loaded.model.visual, device):
    tower = loaded.model.visual.state_dict()
    assert all(value.equal(kept[f"model.visual.{name}"]) for name, value in tower.items())
Path(f"rank.{processes().rank}").write_text(f"{read} of {len(kept)}")
"""
)


def test_under_fsdp_one_process_reads_the_weights(tmp_path):
    """The others have the tower's from it, for its features."""
    standins.save(VERSIONS["4.1v"], MODE, tmp_path / "model")
    start(tmp_path, LOADER, 2, "fsdp", "model")
    first, second = ((tmp_path / f"rank.{rank}").read_text().split(" of ") for rank in (0, 1))
    assert first[0] == first[1] and int(second[0]) < int(second[1]) / 10


@pytest.mark.parametrize(("strategy", "processes"), [("ddp", 1), ("zero2", 2), ("zero3", 2), ("fsdp", 2)])
def test_the_first_loss_of_dpo_in_bf16_is_ln_2(tmp_path, strategy, processes):
    """Policy and reference are one model then; log-probabilities rounded to bf16 would differ by up to 0.2."""
    case = CASES["4.1v"] | {"precision": "bf16", "max_steps": 1}
    found = train(tmp_path, strategy, "4.1v", processes, **case)
    assert found["dpo"][0] == pytest.approx(math.log(2), abs=2e-4)
