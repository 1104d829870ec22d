"""What a server makes of our adapters: the names of vLLM's classes for these models, and what it would ignore.

Read from vLLM 0.33.0: `hf_to_vllm_mapper`, `packed_modules_mapping`, `get_mm_mapping` and the layers of
Glm4vForConditionalGeneration and Glm4vMoeForConditionalGeneration (model_executor/models/glm4_1v.py, glm4.py,
glm4_moe.py), and the layers that take LoRA (lora/utils.py, lora/model_manager.py).
"""

import re
from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.models import adapters, bases

VLLM = "0.33.0"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # its `MaxLoRARanks`
# Today's prefix and vLLM's.
PREFIXES = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.visual.": "visual.",
}
# LoRA on the vision tower is served with --enable-tower-connector-lora alone and dropped with a warning otherwise
# (vllm#27916, vllm#32541 were of silence). Convolutions, norms, embeddings and the head take none, and a router is no
# LoRA layer; routed experts are, by other names than peft's for parameters.
_SERVED = re.compile(
    r"language_model\.model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj"
    r"|mlp\.(?:shared_experts\.)?(?:gate_up_proj|gate_proj|up_proj|down_proj))"
)
_LORA = re.compile(
    r"^base_model\.model\.(?P<module>.+?)\."
    r"(?:(?P<served>lora_[AB]\.weight)|lora_\w+|modules_to_save|token_adapter|base_layer|weight|bias)\b"
)


def vllm_name(name: str) -> str:
    """What vLLM calls the weight or module `name`."""
    for today, theirs in PREFIXES.items():
        if name.startswith(today):
            return theirs + name.removeprefix(today)
    return name


def max_lora_rank(path: Path) -> int:
    """The least `max_lora_rank` of vLLM that has room for the adapter at `path`; a UserError where none has."""
    config = files.read_object(path / bases.ADAPTER_CONFIG)
    largest = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    fitting = [rank for rank in _RANKS if rank >= largest]
    if not fitting:
        raise UserError(
            f"{path}: an adapter of rank {largest}; vLLM serves at most rank {_RANKS[-1]}; merge it into its base"
        )
    return fitting[0]


def ignored_by_vllm(path: Path) -> list[str]:
    """The modules that the adapter at `path` changes and vLLM, as it is started by default, would not serve.

    It refuses an adapter with more than matrices A and B: magnitudes of DoRA, biases, tokens, whole modules.
    """
    matched = [match for key in adapters.keys(path) if (match := _LORA.match(key))]
    return sorted(
        {
            match["module"]
            for match in matched
            if not (match["served"] and _SERVED.fullmatch(vllm_name(match["module"])))
        }
    )
