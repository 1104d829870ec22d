"""Options that need an NVIDIA GPU and a package that is not installed with the others."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Training
from workflow_scripts.training.division import STRATEGIES

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

# Distributions with the versions that these options were written against.
BITSANDBYTES = "bitsandbytes==0.50.2"
LIGER = "liger-kernel==0.8.5"


def four_bit(settings: Training, model_type: str, device: torch.device) -> "BitsAndBytesConfig | None":
    """QLoRA's BitsAndBytesConfig, or None where it is not asked for; a UserError where it cannot be had.

    As in QLoRA (arXiv 2305.14314): NF4, double quantisation, bf16 arithmetic. The vision tower and the head stay as
    they are.
    """
    if settings.method != "lora" or not settings.lora.quantize:
        return None
    require("lora.quantize: 4bit", BITSANDBYTES, device)
    if model_type == "glm4v_moe":
        raise UserError(
            "lora.quantize: 4bit leaves the routed experts of an MoE, which are nearly all of it, in 16 bits "
            "(bitsandbytes takes linear layers only); use strategy: zero3"
        )
    if settings.precision == "fp32":
        raise UserError("lora.quantize: 4bit computes in bf16; leave precision: fp32 or quantize out")
    if STRATEGIES[settings.strategy].divides_weights:
        raise UserError(
            f"lora.quantize: 4bit cannot shard weights as strategy: {settings.strategy} does; "
            "use ddp or zero2, or leave quantize empty"
        )
    return nf4()


def nf4() -> "BitsAndBytesConfig":
    """The BitsAndBytesConfig of `four_bit`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )


def liger(settings: Training, device: torch.device) -> dict[str, Any]:
    """TrainingArguments that turn on Liger's layers; {} where they are not asked for, a UserError where impossible.

    They work token by token, so a tree of rows stays exact. TRL's fused head stays: it switches Liger's off.
    """
    if not settings.liger:
        return {}
    require("liger: true", LIGER, device)
    return {"use_liger_kernel": True, "liger_kernel_config": {"rms_norm": True, "swiglu": True}}


def callbacks(settings: Training) -> list[TrainerCallback]:
    """What Liger's layers need during a training."""
    return [OwnGradients()] if settings.liger else []


class OwnGradients(TrainerCallback):
    """Lets Liger's norms write their gradient beside the one that they are given, and not over it.

    Liger 0.8.5 patches the norms of a Glm4v that is loaded already to work in place, unlike those of one that is not. A
    norm before a residual is given the residual's own gradient: written over, the layers below learn from a wrong one,
    with plausible losses (on an H200, 11.2 after four steps that come to 5.8 otherwise).
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for module in model.modules():
            if getattr(module, "in_place", False) is True:
                module.in_place = False


def require(option: str, package: str, device: torch.device) -> None:
    """A UserError where `option` has no CUDA device or `package` ("name==version") is not installed."""
    if device.type != "cuda":
        raise UserError(f"{option} needs an NVIDIA GPU, and this runs on the {device.type}; leave it out")
    try:
        metadata.version(package.split("==")[0])
    except metadata.PackageNotFoundError:
        raise UserError(f"{option} needs a package that is not here: pip install {package}") from None
