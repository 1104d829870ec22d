"""Running one of TRL's trainers from the configuration, and writing what comes out of it."""

import logging
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Trainer, set_seed

from workflow_scripts import files
from workflow_scripts.config import Training, micro_batches
from workflow_scripts.errors import UserError
from workflow_scripts.models import adapters, loading
from workflow_scripts.training import plan
from workflow_scripts.training.interruption import StopOnSignal
from workflow_scripts.training.progress import Progress, curve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """This process's batches of the whole training, the accumulation steps they need, and a single pass."""

    mine: list[list[int]]
    accumulation: int
    single_pass: list[list[int]]

    @property
    def steps(self) -> int:
        return math.ceil(len(self.mine) / self.accumulation)


def planned(settings: Training, costs: list[plan.Row], seed: int, equal: bool) -> Planned:
    """Batches of up to `micro_batch_size` rows; `equal` ones for DPO, whose metrics want as many on each rank."""
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    try:
        rows, _ = micro_batches(settings.batch_size, settings.micro_batch_size, ranks)
    except ValueError as error:
        raise UserError(str(error)) from None
    limits = plan.Limits(rows, settings.micro_batch_tokens, settings.rows_per_image)

    def batches(epochs: float) -> list[list[int]]:
        return plan.batches(costs, limits, epochs, seed, ranks, equal)[rank]

    # Batches of equal size cannot be filled to the token limit one by one: all of them are made smaller.
    while equal and limits.rows > 1 and plan.largest(costs, batches(settings.epochs)) > limits.tokens:
        smaller = [size for size in range(1, limits.rows) if settings.batch_size % (size * ranks) == 0]
        limits = replace(limits, rows=max(smaller))
    accumulation = settings.batch_size // (limits.rows * ranks)
    mine = batches(settings.epochs)
    if settings.max_steps:
        mine = mine[: settings.max_steps * accumulation]
    return Planned(mine, accumulation, batches(1))


def arguments(settings: Training, folder: Path, seed: int, planned: Planned) -> dict:
    """What SFTConfig and DPOConfig share. The plan holds all epochs: to the trainer it is one."""
    device, dtype = loading.device_and_dtype(settings.gpus, settings.precision)
    return {
        "output_dir": str(folder),
        "num_train_epochs": 1,
        "per_device_train_batch_size": max(map(len, planned.mine)),
        "gradient_accumulation_steps": planned.accumulation,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "seed": seed,
        "logging_steps": min(settings.log_steps, planned.steps),
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_nan_inf_filter": False,  # the trainers refuse such a loss
        "bf16": dtype == torch.bfloat16,
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": deepspeed_config(settings.strategy),
        "ddp_find_unused_parameters": False,  # a batch without images runs the vision tower all the same
        "dataloader_num_workers": 2 if device.type == "cuda" else 0,
        "dataloader_pin_memory": device.type == "cuda",
        "remove_unused_columns": False,
        "max_length": None,  # never cut: validation has refused what is too long
        "router_aux_loss_coef": 0.0,  # TRL 1.16 looks for `num_experts`, which 4.5V's configuration does not have
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }


def deepspeed_config(strategy: str) -> dict | None:
    """DeepSpeed's configuration for `strategy`; None for plain data parallelism."""
    if strategy == "ddp":
        return None
    stage = int(strategy.removeprefix("zero"))
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }


def trainable_model(path: Path, settings: Training, seed: int):
    """The model at `path` made ready for `settings.method`, and peft's configuration for a new adapter or None.

    LoRA continues an adapter that is there and starts one where there is none; full training merges one first.
    A GPU trains LoRA on bf16 weights and full weights in fp32 under bf16 autocast.
    """
    set_seed(seed)
    device, dtype = loading.device_and_dtype(settings.gpus, settings.precision)
    if settings.method == "full":
        model = loading.merged(path, torch.float32, device)
        for parameter in model.model.visual.parameters():
            parameter.requires_grad_(not settings.freeze_vision)
        return model, None
    if loading.is_adapter(path):
        return loading.model(path, dtype, device, trainable=True), None
    model = loading.model(path, dtype, device)
    return model, adapters.lora_config(model, settings.lora)


def trains_vision(settings: Training) -> bool:
    """Whether the vision tower changes while training."""
    return settings.lora.vision if settings.method == "lora" else not settings.freeze_vision


def train(trainer: Trainer, resume_from: Path | None, progress: Progress) -> dict:
    """Run `trainer` to its end; returns steps, seconds, final loss, curve and the model's size."""
    trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    logger.info(
        "training %s of %s parameters on %s, %d rows, batch %d",
        f"{trainable:,}",
        f"{total:,}",
        trainer.args.device,
        len(trainer.train_dataset),
        progress.rows_per_step,
    )
    set_seed(trainer.args.seed)  # dropout must not depend on what was computed, or read from a cache, before
    stop = StopOnSignal()
    trainer.add_callback(stop)
    with stop.listening():
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    points = curve(trainer.state.log_history)
    trained = sum(map(len, trainer.planned))
    return {
        "train_rows": len(trainer.train_dataset),
        "steps": trainer.state.global_step,
        "seconds": progress.seconds,
        "examples_per_second": trained / progress.seconds,
        "final_loss": points[-1]["loss"],
        "trainable_parameters": trainable,
        "total_parameters": total,
        "device": str(trainer.args.device),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "curve": points,
    }


def save(trainer: Trainer, processor, folder: Path, checkpoints: Path, metrics: dict) -> None:
    """Put the trained model, its processor and metrics.json into `folder`, then remove the checkpoints."""
    final = checkpoints / "final"
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return
    # DPO keeps the SFT adapter as a second, frozen one; it is not part of the result.
    shutil.rmtree(final / "ref", ignore_errors=True)
    for leftover in ("training_args.bin", "README.md"):
        (final / leftover).unlink(missing_ok=True)
    processor.save_pretrained(final)
    files.write_json(final / "metrics.json", metrics)
    with files.replacing_folder(folder) as temporary:
        temporary.rmdir()
        os.rename(final, temporary)
    shutil.rmtree(checkpoints)
