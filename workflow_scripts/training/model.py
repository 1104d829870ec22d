"""The model that is trained: loaded for its method, with a new adapter's configuration and the rates of its parts."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Training
from workflow_scripts.models import adapters, loading
from workflow_scripts.training import optional
from workflow_scripts.training.strategies import STRATEGIES


def trainable_model(path: Path, settings: Training) -> tuple[Any, LoraConfig | None]:
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


def _wants_gradient(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_(torch.is_grad_enabled())


def _trainable_model(path: Path, settings: Training) -> tuple[Any, LoraConfig | None]:
    device, dtype = loading.device_and_dtype(settings.gpus, settings.precision)
    strategy = STRATEGIES[settings.strategy]
    placed = strategy.library == "torch"
    if settings.method == "full":
        if loading.is_adapter(path) and strategy.is_zero3:
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
    chosen = {"merger": settings.merger_learning_rate, "vision": settings.vision_learning_rate}
    rates = {part: rate for part, rate in chosen.items() if rate is not None}
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
