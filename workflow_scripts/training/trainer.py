"""Running one of TRL's trainers from the configuration, and writing what comes out of it."""

import logging
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Trainer

from workflow_scripts import files
from workflow_scripts.config import Training, micro_batches
from workflow_scripts.errors import UserError
from workflow_scripts.models import adapters, loading
from workflow_scripts.training import plan, strategies
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
        "bf16": dtype == torch.bfloat16,
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        **strategies.arguments(settings.strategy),
        "ddp_timeout": 4 * 3600,  # seconds; while one process prepares what all read, the others wait
        "dataloader_num_workers": 2 if device.type == "cuda" else 0,
        "dataloader_pin_memory": device.type == "cuda",
        "remove_unused_columns": False,
        "max_length": None,  # never cut: validation has refused what is too long
        "router_aux_loss_coef": 0.0,  # TRL 1.16 looks for `num_experts`, which 4.5V's configuration does not have
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }


def trainable_model(path: Path, settings: Training):
    """The model at `path` made ready for `settings.method`, and peft's configuration for a new adapter or None.

    LoRA continues an adapter that is there and starts one where there is none; full training merges one first.
    A GPU trains LoRA on bf16 weights and full weights in fp32 under bf16 autocast. DeepSpeed and FSDP place the
    weights themselves; the trainer's arguments must exist before.
    """
    device, dtype = loading.device_and_dtype(settings.gpus, settings.precision)
    placed = settings.strategy == "ddp"
    if settings.method == "full":
        if loading.is_adapter(path) and settings.strategy.startswith("zero3"):
            raise UserError(
                f"{path}: an adapter cannot be merged into weights that ZeRO-3 has divided; take strategy: zero2 or "
                "fsdp, or method: lora"
            )
        model = loading.merged(path, torch.float32, device, placed)
        for parameter in model.model.visual.parameters():
            parameter.requires_grad_(not settings.freeze_vision)
        return model, None
    if loading.is_adapter(path):
        return loading.model(path, dtype, device, trainable=True, placed=placed), None
    model = loading.model(path, dtype, device, placed=placed)
    return model, adapters.lora_config(model, settings.lora)


def trains_vision(model, lora, settings: Training) -> bool:
    """Whether the vision tower of a `trainable_model` changes: with a new adapter `lora`, an old one, or itself."""
    if lora:
        return settings.lora.vision
    return any(parameter.requires_grad for parameter in loading.backbone(model).visual.parameters())


def train(trainer: Trainer, resume_from: Path | None, progress: Progress) -> dict:
    """Run `trainer` to its end; returns steps, seconds, final loss, curve and the model's size."""
    parameters = list(trainer.model.parameters())
    trainable = sum(strategies.size(parameter) for parameter in parameters if parameter.requires_grad)
    total = sum(map(strategies.size, parameters))
    logger.info(
        "training %s of %s parameters on %s, %d rows, batch %d",
        f"{trainable:,}",
        f"{total:,}",
        trainer.args.device,
        len(trainer.train_dataset),
        progress.rows_per_step,
    )
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    points = curve(trainer.state.log_history)
    if not points or not math.isfinite(points[-1]["loss"]):
        raise UserError(
            f"the loss is not a number at step {trainer.state.global_step}; lower the learning rate"
        )
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
