"""What SFTConfig and DPOConfig are given alike."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from workflow_scripts.configuration.settings import Training
from workflow_scripts.training import early_stopping, optional, strategies
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.model import Start


def recompute(arguments: TrainingArguments, every: int | None) -> None:
    """Let `arguments` recompute the activations of one in `every` layers; of none where it is None."""
    # The old name mirrors the new one, and TRL 1.16 reads the old.
    arguments.activation_checkpointing = arguments.gradient_checkpointing = every is not None
    if every is not None and every > 1:
        kwargs: Any = arguments.activation_checkpointing_kwargs  # one dictionary under both names
        kwargs["every_n_layers"] = every


def shared(settings: Training, start: Start, folder: Path, seed: int, schedule: Schedule) -> dict[str, Any]:
    """TrainingArguments for unfinished training in `folder`. The schedule holds all epochs: to the trainer it is one."""
    return {
        "output_dir": str(folder),
        "num_train_epochs": 1,
        "per_device_train_batch_size": max(map(len, schedule.mine)),
        "gradient_accumulation_steps": schedule.accumulation,
        "learning_rate": settings.rate.value,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "seed": seed,
        "logging_steps": min(settings.log_steps, schedule.steps),
        "logging_first_step": True,
        "save_steps": settings.save_steps,
        **early_stopping.arguments(settings),
        **optional.liger(settings, start.device),
        "logging_nan_inf_filter": False,  # the trainers refuse such a loss
        "bf16": start.dtype == torch.bfloat16,
        "use_cpu": start.device.type == "cpu",
        "activation_checkpointing": settings.gradient_checkpointing is not False,  # `recompute` may find room
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        **strategies.arguments(settings.strategy),
        "ddp_timeout": 4 * 3600,  # seconds; while one process prepares what all read, the others wait
        "dataloader_num_workers": 2 if start.device.type == "cuda" else 0,
        "dataloader_pin_memory": start.device.type == "cuda",
        "remove_unused_columns": False,
        "max_length": None,  # never cut: validation has refused what is too long
        "router_aux_loss_coef": 0.0,  # TRL 1.16 looks for `num_experts`, which 4.5V's configuration does not have
        "report_to": "none",
        "disable_tqdm": True,  # Progress has a bar of its own
    }
