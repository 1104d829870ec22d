"""The model that is trained: what is decided of it once, and how it is loaded for its method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Training
from workflow_scripts.models import adapters, bases, loading
from workflow_scripts.training import optional, strategies
from workflow_scripts.training.division import STRATEGIES, Strategy


@dataclass(frozen=True)
class Start:
    """What a training starts from, and where and in which type it runs.

    `rates` are the learning rates of the parts with one of their own.
    """

    path: Path
    is_adapter: bool
    trains_vision: bool
    rates: dict[str, float]
    strategy: Strategy
    device: torch.device
    dtype: torch.dtype


def start(path: Path, settings: Training) -> Start:
    """What training the model or adapter at `path` means.

    A UserError where a part with a rate does not train, and under FSDP for a mixture of experts.
    """
    is_adapter = bases.is_adapter(path)
    if settings.method == "full":
        trains_vision = not settings.freeze_vision
    else:
        trains_vision = adapters.adapts_vision(path) if is_adapter else settings.lora.vision
    chosen = {"merger": settings.merger_learning_rate, "vision": settings.vision_learning_rate}
    rates = {part: rate for part, rate in chosen.items() if rate is not None}
    if rates and not trains_vision:
        key = "freeze_vision: false"
        if settings.method == "lora":
            key = "sft.lora.vision: true" if is_adapter else "lora.vision: true"
        raise UserError(
            f"{', '.join(f'{part}_learning_rate' for part in rates)}: the vision tower, which the merger is part of, "
            f"is frozen; set {key}, or leave the rate empty"
        )
    strategy = STRATEGIES[settings.strategy]
    if strategy.library == "fsdp" and loading.model_type(path) == "glm4v_moe":
        raise UserError(
            f"{path}: its routers have buffers, which accelerate's FSDP does not divide; take strategy: zero3"
        )
    device, dtype = loading.device_and_dtype(settings.gpus, settings.precision)
    return Start(
        path=path,
        is_adapter=is_adapter,
        trains_vision=trains_vision,
        rates=rates,
        strategy=strategy,
        device=device,
        dtype=dtype,
    )


def load(start: Start, settings: Training) -> tuple[Any, LoraConfig | None]:
    """The model made ready for `settings.method`, and peft's configuration for a new adapter or None.

    LoRA continues an adapter that is there and starts one where there is none; full training merges one first.
    A GPU trains LoRA on bf16 weights, and full weights in fp32 under bf16 autocast, of DeepSpeed in bf16. DeepSpeed and
    FSDP place the weights themselves; the trainer's arguments must exist before.
    """
    if settings.method == "full":
        whole = _whole(start, settings.freeze_vision)
        strategies.room(whole)
        return whole, None
    model, lora = _adapted(start, settings)
    strategies.room(model)
    if start.trains_vision:
        # Reentrant checkpointing, which TRL takes under ZeRO-3, gives no gradient to a block whose input wants none.
        backbone: Any = loading.backbone(model)
        backbone.visual.patch_embed.register_forward_hook(_wants_gradient)
    return model, lora


def _wants_gradient(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_(torch.is_grad_enabled())


def _whole(start: Start, freeze_vision: bool) -> Any:
    if (
        start.is_adapter and start.strategy.divides_weights
    ):  # under FSDP TRL's reference would be the adapter's base
        raise UserError(
            f"{start.path}: an adapter cannot be merged into weights that processes divide; take strategy: zero2, or "
            "method: lora"
        )
    # DeepSpeed trains in the precision asked for, and each process has fp32 copies of its share alone.
    dtype = start.dtype if start.strategy.library == "deepspeed" else torch.float32
    model: Any = loading.merged(start.path, dtype, start.device, _device_map(start), _placed(start))
    for parameter in model.model.visual.parameters():
        parameter.requires_grad_(not freeze_vision)
    return model


def _adapted(start: Start, settings: Training) -> tuple[Any, LoraConfig | None]:
    four_bit = optional.four_bit(settings, loading.model_type(start.path), start.device)
    model = loading.model(
        start.path,
        start.dtype,
        start.device,
        trainable=start.is_adapter,
        device_map=_device_map(start),
        quantization=four_bit,
        placed=_placed(start),
    )
    return model, None if start.is_adapter else adapters.lora_config(model, settings.lora)


def _placed(start: Start) -> bool:
    """Whether the weights are put on their device here."""
    return start.strategy.library == "torch"


def _device_map(start: Start) -> str | None:
    return None if strategies.reads_weights(start.strategy) else "meta"
