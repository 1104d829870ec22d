"""A training stopped at a checkpoint and resumed, beside the same without a stop: equal losses."""

import tempfile
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, set_seed

from benchmarks import common, sft
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import device, on_gpu
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data.collators import SftCollator

STEPS, STOPPED = 6, 3
# A GPU adds up in an order that differs from run to run.
ALIKE = {True: 1e-3, False: 0.0}


def check(findings: Findings) -> None:
    """A tiny model on our trainer: six steps at once, and three and three."""
    with tempfile.TemporaryDirectory() as folder:
        whole = _losses(Path(folder) / "whole")
        again = _losses(Path(folder) / "again")
        resumed = _losses(Path(folder) / "again", resume=True)
    findings.figure("losses at once", whole)
    findings.figure("losses of steps after the checkpoint", resumed)
    apart = max(abs(a - b) for a, b in zip(whole[STOPPED:], resumed, strict=True))
    noise = max(abs(a - b) for a, b in zip(whole, again, strict=True))
    findings.figure("two runs without a stop are apart by", noise)
    allowed = ALIKE[on_gpu()]
    findings.goal(
        f"resumed losses are those of a run without a stop, within {allowed:g}",
        f"{apart:.2g}",
        apart <= allowed,
    )


def _losses(folder: Path, resume: bool = False) -> list[float]:
    """The losses of all steps, or of those after the checkpoint that a training has left in `folder`."""
    folder.mkdir(exist_ok=True)
    case = common.case(folder, questions=3, side=112, images=2)
    dataset = sft.ours(case)
    set_seed(0)
    model = standins.pretrained_model(VERSIONS[common.VERSION]).to(device())
    arguments: dict[str, Any] = common.arguments(case, folder / "ours") | {
        "save_strategy": "steps",
        "save_steps": STOPPED,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    set_seed(0)
    trainer = sft.SharedPrefixSFTTrainer(
        model,
        args=sft.SFTConfig(**arguments),
        train_dataset=dataset,
        processing_class=case.processor,
        data_collator=SftCollator(case.processor, case.pixels()),
        peft_config=common.adapter(model, "lora"),
        planned=[[step % 6, (step + 2) % 6] for step in range(STEPS)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = str(folder / "ours" / f"checkpoint-{STOPPED}") if resume else None
    trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses[STOPPED:] if resume else losses
