"""An adapter is merged as peft merges it, in the hub's names and the base's types, a file at a time."""

import shutil
from collections import Counter

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from test_foreign import FOLDER, copied

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading, merging, standins
from workflow_scripts.models.catalogue import VERSIONS

CPU = torch.device("cpu")
WRITTEN = sorted(path.parent for path in FOLDER.glob("*/*/adapter"))


def divided(folder, parts=3):
    """The weights of `folder` in several files, experts of a layer apart too."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {
        name: f"model-{number % parts + 1:05}-of-{parts:05}.safetensors"
        for number, name in enumerate(weights)
    }
    for file in set(placed.values()):
        save_file({name: weights[name] for name in weights if placed[name] == file}, folder / file)
    files.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": placed})


def drawn(folder, version, **lora):
    """An adapter upon a stand-in, whose weights are not zero."""
    base = folder / "base"
    standins.save(VERSIONS[version], "thinking", base)
    model = loading.model(base, torch.float32, CPU)
    adapted = get_peft_model(model, adapters.lora_config(model, Lora(rank=4, dropout=0.0, **lora)))
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_A" not in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder / "adapter")
    loading.name_base(folder / "adapter", base)
    return folder / "adapter"


def same_as_peft(adapter, target):
    base = loading.base_of(adapter)
    target.mkdir()
    merging.write(adapter, base, target)
    expected = loading.merged(adapter, torch.float32, CPU).state_dict()
    shutil.copy(base / "config.json", target)
    found = loading.model(target, "auto", CPU).state_dict()  # in the base's type
    untouched = loading.model(base, torch.float32, CPU).state_dict()
    assert any(not expected[name].equal(untouched[name]) for name in expected)
    for name, weight in expected.items():
        rounding = 1e-6 if found[name].dtype == torch.float32 else 8e-3
        torch.testing.assert_close(
            found[name], weight.to(found[name].dtype), atol=1e-6, rtol=rounding, msg=name
        )


@pytest.mark.parametrize(
    "peft",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"bias": "all", "trainable_token_indices": [5, 6]}],
    ids=str,
)
@pytest.mark.parametrize("version", ["4.1v", "4.5v"])
def test_an_adapter_is_merged_as_by_peft(tmp_path, version, peft):
    if version == "4.5v" and "use_dora" in peft:
        pytest.skip("peft has no DoRA of parameters, which an MoE's adapters are")
    adapter = drawn(tmp_path, version, vision=True, peft=peft)
    divided(tmp_path / "base")
    same_as_peft(adapter, tmp_path / "merged")
    assert len(merging.weight_files(tmp_path / "merged")) == 3


@pytest.mark.parametrize("written", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_adapters_of_other_tools_are_merged_as_by_peft(written, tmp_path, monkeypatch):
    """ms-swift's is on the routed experts too, and on a convolution."""
    monkeypatch.chdir(copied(written, tmp_path / "written"))
    same_as_peft(tmp_path / "written" / "adapter", tmp_path / "merged")


def test_what_an_adapter_adds_to_the_experts_of_a_layer_is_computed_once(tmp_path, monkeypatch):
    """The weights of one expert come after those of another, and each is of one of a layer's two fused ones."""
    monkeypatch.chdir(copied(FOLDER / "ms-swift-4.6.0" / "glm4v_moe", tmp_path / "written"))
    computed = Counter()
    compute = merging.Merger._delta

    def counted(self, stacked):
        computed[stacked] += 1
        return compute(self, stacked)

    monkeypatch.setattr(merging.Merger, "_delta", counted)
    (tmp_path / "merged").mkdir()
    adapter = tmp_path / "written" / "adapter"
    merging.write(adapter, loading.base_of(adapter), tmp_path / "merged")
    assert {name.rpartition(".")[2] for name in computed} == {"gate_up_proj", "down_proj"}
    assert set(computed.values()) == {1}


def test_the_types_of_the_base_are_kept(tmp_path):
    adapter = drawn(tmp_path, "4.1v")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {name: weight.bfloat16() for name, weight in weights.items()}, tmp_path / "base" / "model.safetensors"
    )
    (tmp_path / "merged").mkdir()
    merging.write(adapter, tmp_path / "base", tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.bfloat16}


def test_a_whole_model_gets_the_types_of_what_it_was_trained_from(tmp_path):
    base, trained, target = (tmp_path / name for name in ("base", "trained", "target"))
    for folder in (base, trained):
        standins.save(VERSIONS["4.5v"], "thinking", folder)
    weights = load_file(base / "model.safetensors")
    kept = "e_score_correction_bias"
    save_file(
        {name: weight if name.endswith(kept) else weight.bfloat16() for name, weight in weights.items()},
        base / "model.safetensors",
    )
    target.mkdir()
    merging.write(trained, base, target)
    found = load_file(target / "model.safetensors")
    assert {name for name, weight in found.items() if weight.dtype == torch.float32} == {
        name for name in weights if name.endswith(kept)
    }
    assert all(weight.equal(weights[name].to(weight.dtype)) for name, weight in found.items())


def test_a_broken_adapter_is_named(tmp_path):
    adapter = drawn(tmp_path, "4.1v")
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "q_proj.lora_B" in name)
    weights[name].fill_(float("nan"))
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match=r"adapter: model\.language_model.*q_proj\.weight: NaNs"):
        merging.write(adapter, tmp_path / "base", tmp_path / "merged")


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")  # of lora_bias
def test_biases_of_the_adapter_itself_are_not_lost_in_merging(tmp_path):
    adapter = drawn(tmp_path, "4.1v", peft={"lora_bias": True})
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match="an adapter with lora_bias cannot be merged"):
        merging.write(adapter, tmp_path / "base", tmp_path / "merged")


def test_an_adapter_of_weights_that_are_not_there_is_refused(tmp_path):
    adapter = drawn(tmp_path, "4.1v")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights["lost"] = weights.pop(name)
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match=f"1 of its weights have no place in .*base .{name}"):
        merging.write(adapter, tmp_path / "base", tmp_path / "merged")


def test_a_quantised_base_is_refused(tmp_path):
    save_file({"lm_head.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="lm_head.weight is of type F8_E4M3, .* take the checkpoint in BF16"):
        merging.write(tmp_path, tmp_path, tmp_path / "merged")
