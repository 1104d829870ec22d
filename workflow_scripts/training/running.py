"""Running one of TRL's trainers from the configuration, and writing what comes out of it."""

import itertools
import logging
import os
import shutil
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import Trainer, set_seed

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Training, micro_batches
from workflow_scripts.models import adapters, loading
from workflow_scripts.training import early_stopping, optional, parts, strategies
from workflow_scripts.training.data import batching
from workflow_scripts.training.interruption import StopOnSignal
from workflow_scripts.training.progress import Progress, curve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """This process's batches: of the whole training on `rows` rows, of a single pass over all, of a validation.

    `accumulation` batches make an optimiser step; `loads` are those of each step over all processes, and `peak` is
    the batch with the most tokens.
    """

    rows: int
    mine: list[list[int]]
    accumulation: int
    single_pass: list[list[int]]
    validation: list[list[int]]
    loads: list[batching.Load]
    peak: batching.Load

    @property
    def steps(self) -> int:
        return len(self.loads)


def planned(
    settings: Training, costs: list[batching.Row], seed: int, equal: bool, held: Sequence[int] = ()
) -> Planned:
    """Batches of up to `micro_batch_size` rows; `equal` ones for DPO, whose metrics want as many on each rank.

    A step takes as many batches as hold `batch_size` rows, of unequal ones on average. The rows `held` are validated
    on and not trained on.
    """
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    try:
        most, _ = micro_batches(settings.batch_size, settings.micro_batch_size, ranks)
    except ValueError as error:
        raise UserError(str(error)) from None

    # Batches of equal size cannot be filled to the token limit one by one: all of them are made smaller.
    sizes = [size for size in range(most, 0, -1) if settings.batch_size % (size * ranks) == 0]

    def batches(rows: Sequence[int], epochs: float, equal: bool) -> tuple[int, list[list[list[int]]]]:
        """How many rows a batch has at most, and the batches of each rank."""
        chosen = [costs[row] for row in rows]
        for size in sizes:
            limits = batching.Limits(size, settings.micro_batch_tokens, settings.rows_per_image)
            made = batching.batches(chosen, limits, epochs, seed, ranks, equal)
            if not equal or batching.largest(chosen, itertools.chain(*made)) <= limits.tokens:
                break
        return size, [[[rows[place] for place in batch] for batch in mine] for mine in made]

    trained = sorted(set(range(len(costs))) - set(held))
    size, training = batches(trained, settings.epochs, equal)
    on_average = size if equal else statistics.mean(map(len, itertools.chain(*training)))
    accumulation = max(1, round(settings.batch_size / (on_average * ranks)))
    if settings.max_steps:
        training = [mine[: settings.max_steps * accumulation] for mine in training]
    loads = [[batching.load(costs, batch) for batch in mine] for mine in training]
    return Planned(
        len(trained),
        training[rank],
        accumulation,
        batches(range(len(costs)), 1, equal)[1][rank],
        batches(held, 1, equal=True)[1][rank],
        _steps(loads, accumulation),
        max(itertools.chain(*loads), key=lambda load: load.tokens),
    )


def _steps(loads: list[list[batching.Load]], accumulation: int) -> list[batching.Load]:
    """The loads of each rank's batches as those of the optimiser steps."""
    starts = range(0, len(loads[0]), accumulation)
    return [
        sum((load for mine in loads for load in mine[start : start + accumulation]), batching.Load())
        for start in starts
    ]


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
        "logging_first_step": True,
        "save_steps": settings.save_steps,
        **early_stopping.arguments(settings),
        **optional.liger(settings, device),
        "logging_nan_inf_filter": False,  # the trainers refuse such a loss
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
        "disable_tqdm": True,  # Progress has a bar of its own
    }


def trainable_model(path: Path, settings: Training):
    """The model at `path` made ready for `settings.method`, and peft's configuration for a new adapter or None.

    LoRA continues an adapter that is there and starts one where there is none; full training merges one first.
    A GPU trains LoRA on bf16 weights and full weights in fp32 under bf16 autocast. DeepSpeed and FSDP place the
    weights themselves; the trainer's arguments must exist before.
    """
    model, lora = _trainable_model(path, settings)
    if settings.method == "lora" and trains_vision(path, settings):
        # Reentrant checkpointing, which TRL takes under ZeRO-3, gives no gradient to a block whose input wants none.
        loading.backbone(model).visual.patch_embed.register_forward_hook(_wants_gradient)
    return model, lora


def _wants_gradient(module, inputs, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_(torch.is_grad_enabled())


def _trainable_model(path: Path, settings: Training):
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
    four_bit = optional.four_bit(settings, loading.model_type(path), device)
    if loading.is_adapter(path):
        return loading.model(path, dtype, device, trainable=True, quantization=four_bit, placed=placed), None
    model = loading.model(path, dtype, device, quantization=four_bit, placed=placed)
    return model, adapters.lora_config(model, settings.lora)


def part_rates(path: Path, settings: Training) -> dict[str, float]:
    """Learning rates of the parts of the model at `path` with one of their own; a UserError where it does not train."""
    rates = {"merger": settings.merger_learning_rate, "vision": settings.vision_learning_rate}
    rates = {part: rate for part, rate in rates.items() if rate is not None}
    if rates and not trains_vision(path, settings):
        key = "freeze_vision: false"
        if settings.method == "lora":
            key = "sft.lora.vision: true" if loading.is_adapter(path) else "lora.vision: true"
        raise UserError(
            f"{', '.join(f'{part}_learning_rate' for part in rates)}: the vision tower, which the merger is part of, "
            f"is frozen; set {key}, or leave the rate empty"
        )
    return rates


def trains_vision(path: Path, settings: Training) -> bool:
    """Whether the vision tower of the model at `path` changes: itself, or an adapter that is there or a new one."""
    if settings.method == "full":
        return not settings.freeze_vision
    return adapters.adapts_vision(path) if loading.is_adapter(path) else settings.lora.vision


def train(trainer: Trainer, resume_from: Path | None, progress: Progress) -> dict:
    """Run `trainer` to its end; returns steps, seconds, final loss, curve and the model's size."""
    set_seed(trainer.args.seed)  # dropout must not depend on what was computed, or read from a cache, before
    stop = StopOnSignal()
    trainer.add_callback(stop)
    with logging_redirect_tqdm(), closing(progress), stop.listening():
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    points = curve(trainer.state.log_history)
    seconds, done = progress.seconds, progress.done(trainer.state.global_step)
    named = list(trainer.model.named_parameters())
    return {
        "steps": trainer.state.global_step,
        "seconds": seconds,
        "examples_per_second": done.rows / seconds,
        "image_reuse": done.image_reuse,
        "final_loss": points[-1]["loss"],
        "trainable_parameters": sum(parts.size(value) for _, value in named if value.requires_grad),
        "total_parameters": sum(parts.size(value) for _, value in named),
        "device": str(trainer.args.device),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "curve": points,
        **early_stopping.outcome(trainer.state),
    }


def save(trainer: Trainer, processor, folder: Path, checkpoints: Path, metrics: dict) -> None:
    """Put the trained model, its processor and metrics.json into `folder`, then remove the checkpoints.

    What was written goes into the fingerprint of `metrics`: other GPUs come to other weights by the same settings.
    """
    final = checkpoints / "final"
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return
    # DPO keeps the SFT adapter as a second, frozen one; it is not part of the result.
    shutil.rmtree(final / "ref", ignore_errors=True)
    for leftover in ("training_args.bin", "README.md"):
        (final / leftover).unlink(missing_ok=True)
    processor.save_pretrained(final)
    weights = [files.sha256(file) for file in sorted(final.glob("*.safetensors"))]
    metrics["fingerprint"] = files.fingerprint([metrics["fingerprint"], weights])
    files.write_json(final / "metrics.json", metrics)
    with files.replacing_folder(folder) as temporary:
        temporary.rmdir()
        shutil.move(final, temporary)  # checkpoints may lie on another disk
    shutil.rmtree(checkpoints)
