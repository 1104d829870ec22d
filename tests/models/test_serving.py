"""What is exported has the names that vLLM knows, and no part of an adapter is dropped there without a word.

The names below are those of the parameters that vLLM 0.33.0 makes (vllm/model_executor/models: glm4_1v.py, glm4.py,
glm4_moe.py, llama.py), before it stacks q, k, v, and gate and up.
"""

import re

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open

from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading, merging, serving, standins
from workflow_scripts.models.catalogue import VERSIONS

CPU = torch.device("cpu")
ATTENTION = r"self_attn\.(?:(?:q|k|v)_proj\.(?:weight|bias)|o_proj\.weight|(?:q|k)_norm\.weight)"
DENSE = r"(?:gate_up_proj|gate_proj|up_proj|down_proj)\.weight"
VISION = (
    r"visual\.(?:patch_embed\.proj\.(?:weight|bias)|embeddings\.position_embedding\.weight"
    r"|post_conv_layernorm\.weight|post_layernorm\.weight|downsample\.(?:weight|bias)"
    r"|blocks\.\d+\.(?:norm[12]\.weight|attn\.(?:qkv|proj)\.weight|mlp\.(?:gate_proj|up_proj|down_proj)\.weight)"
    r"|merger\.(?:(?:proj|gate_proj|up_proj|down_proj)\.weight|post_projection_norm\.(?:weight|bias)))"
)
TEXT = rf"language_model\.(?:lm_head\.weight|model\.(?:embed_tokens|norm)\.weight|model\.layers\.\d+\.(?:{ATTENTION}|{{}}))"
NORMS = r"(?:input|post_attention)_layernorm\.weight"
KNOWN = {
    "glm4v": TEXT.format(rf"mlp\.{DENSE}|{NORMS}|post_(?:self_attn|mlp)_layernorm\.weight"),
    "glm4v_moe": TEXT.format(
        rf"{NORMS}|mlp\.(?:{DENSE}|shared_experts\.{DENSE}|experts\.\d+\.{DENSE}|gate\.(?:weight|e_score_correction_bias))"
    ),
}


def adapter(folder, version, **lora):
    standins.save(VERSIONS[version], "thinking", folder / "base")
    model = loading.model(folder / "base", torch.float32, CPU)
    adapted = get_peft_model(model, adapters.lora_config(model, Lora(rank=2, dropout=0.0, **lora)))
    adapted.save_pretrained(folder / "adapter")
    loading.name_base(folder / "adapter", folder / "base")
    return folder / "adapter"


@pytest.mark.parametrize("version", VERSIONS)
def test_vllm_has_a_place_for_each_weight(tmp_path, version):
    path, target = adapter(tmp_path, version), tmp_path / "target"
    target.mkdir()
    merging.write(path, tmp_path / "base", target)
    pattern = re.compile(f"{KNOWN[VERSIONS[version].architecture]}|{VISION}")
    for file in merging.weight_files(target):
        with safe_open(target / file, "pt") as weights:
            names = [serving.vllm_name(name) for name in weights.keys()]  # noqa: SIM118 (no dictionary)
    assert names and [name for name in names if not pattern.fullmatch(name)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_vllm_serves_all_of_our_adapters_on_the_text(tmp_path, version):
    assert serving.ignored_by_vllm(adapter(tmp_path, version)) == []


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")  # of lora_bias
@pytest.mark.parametrize(
    "peft",
    [{"use_dora": True}, {"lora_bias": True}, {"bias": "lora_only"}, {"trainable_token_indices": [5]}],
    ids=str,
)
def test_what_vllm_refuses_of_an_adapter_on_the_text_is_named(tmp_path, peft):
    """`PEFTHelper._validate_features` and `parse_fine_tuned_lora_name` of vLLM 0.33.0."""
    ignored = serving.ignored_by_vllm(adapter(tmp_path, "4.1v", peft=peft))
    assert ignored and all(name.startswith("model.language_model.") for name in ignored)
    assert ("trainable_token_indices" in peft) == (ignored == ["model.language_model.embed_tokens"])


def test_what_vllm_leaves_out_is_named(tmp_path):
    ignored = serving.ignored_by_vllm(
        adapter(tmp_path, "4.1v", vision=True, peft={"modules_to_save": ["lm_head"]})
    )
    assert "lm_head" in ignored and "model.visual.merger.proj" in ignored
    assert all(name == "lm_head" or name.startswith("model.visual.") for name in ignored)
