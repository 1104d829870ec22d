"""Where LoRA adapters go: every projection of the text layers, and nothing else unless asked."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import safe_open

from workflow_scripts.base.errors import UserError
from workflow_scripts.models import bases

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

ATTENTION = r".*language_model\.layers\.\d+\.self_attn\.(?:q|k|v|o)_proj"
# Fused gate_up_proj (4.1V), gate_proj and up_proj (dense layers and shared experts of 4.5V). The router and the
# routed experts, which are stacked tensors and not modules, stay as they are.
MLP = r".*language_model\.layers\.\d+\.mlp\.(?:shared_experts\.)?(?:gate_up_proj|gate_proj|up_proj|down_proj)"
VISION = (
    r".*visual\.(?:blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.(?:gate_proj|up_proj|down_proj))|merger\.\w*proj)"
)


# Beginnings that peft takes out of the base's weights (`LoraLayer.pissa_init` and its like): to load such an adapter is to
# compute them anew, by chance or not at all; a second one, as DPO's reference is, takes them out twice.
_TAKEN_FROM_BASE = ("pissa", "olora", "corda", "loftq")


class LoraSettings(Protocol):
    """What an adapter is made by; dropout is a share, and `vision` puts it on the vision tower too.

    `peft` are further keys of LoraConfig.
    """

    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def vision(self) -> bool: ...
    @property
    def peft(self) -> Mapping[Any, Any]: ...


def targets(names: list[str], vision: bool) -> list[str]:
    """The modules among `names` that get an adapter; a UserError where no text projection is one of them."""
    pattern = re.compile("|".join([ATTENTION, MLP, VISION] if vision else [ATTENTION, MLP]))
    hit = [name for name in names if pattern.fullmatch(name)]
    if not any("language_model" in name for name in hit):
        raise UserError(
            "no text projection matches the LoRA targets; this architecture is not in models/adapters.py"
        )
    return hit


def changes_base(init_lora_weights: object) -> bool:
    """Whether an adapter that begins so, by peft's name, is upon other weights than its base's own."""
    return isinstance(init_lora_weights, str) and init_lora_weights.lower().startswith(_TAKEN_FROM_BASE)


def adapts_vision(path: Path) -> bool:
    """Whether the adapter in the folder `path` is on the vision tower too."""
    return any(".visual." in name for name in keys(path))


def adapts_experts(path: Path) -> bool:
    """Whether the adapter in the folder `path` is on the routed experts of an MoE too."""
    return any(".mlp.experts." in name for name in keys(path))


def keys(path: Path) -> list[str]:
    """The names of the weights of the adapter in the folder `path`."""
    with safe_open(path / bases.ADAPTER_WEIGHTS, "pt") as adapter:
        return list(adapter.keys())


def lora_config(model: "PreTrainedModel | PeftModel", settings: LoraSettings) -> "LoraConfig":
    """peft's configuration for a new adapter on `model`."""
    from peft import LoraConfig

    names = targets([name for name, _ in model.named_modules()], settings.vision)
    common: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.alpha, "task_type": "CAUSAL_LM"}
    common |= settings.peft
    config = LoraConfig(**common, lora_dropout=settings.dropout, target_modules=names)
    if model.config.model_type == "glm4v_moe":
        name_targets(config, names, experts=False)
    return config


def name_targets(config: "LoraConfig", names: Collection[str], experts: bool) -> None:
    """Let `config`, of an adapter on an MoE, adapt the modules `names`, and the routed `experts` or not.

    peft 0.21 takes any module named gate_proj, up_proj or down_proj on an MoE for the routed experts, so the dense and
    shared ones are named as parameters, which take no dropout. Can go with the release that has peft#3715.
    """
    mistaken = [name for name in names if name.endswith(("gate_proj", "up_proj", "down_proj"))]
    if mistaken:
        config.target_modules = [name for name in names if name not in mistaken]
        if experts:
            config.target_modules += sorted({name.rpartition(".")[2] for name in mistaken})
        config.target_parameters = [
            *(config.target_parameters or []),
            *(f"{name}.weight" for name in mistaken),
        ]
        if config.lora_dropout and not config.inference_mode:
            logger.info(
                "LoRA dropout is 0 on an MoE: peft adapts its shared experts as parameters, which take none"
            )
        config.lora_dropout = 0.0
