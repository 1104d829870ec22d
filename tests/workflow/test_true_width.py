"""A slice of GLM-4.1V-9B of true width goes through the whole chain: shards, bf16, adapters, merging."""

import gc

import pytest
import torch
from chains import SHORT, finished
from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks import true_width
from workflow_scripts.base import files
from workflow_scripts.models import loading
from workflow_scripts.stages import export

pytestmark = pytest.mark.slow
RUN = "slake_4.1v_base"
INDEX = "model.safetensors.index.json"
BF16, CPU = torch.bfloat16, torch.device("cpu")


@pytest.fixture(scope="module")
def slice_of_9b(tmp_path_factory):
    return true_width.write(tmp_path_factory.mktemp("hub") / "slice")


@pytest.fixture(scope="module")
def chain(start, slice_of_9b):
    few = {"max_steps": 2, "batch_size": 4, "images_per_step": 2, "save_steps": 2, "vision_cache_gb": 1}
    training = {**few, "learning_rate": 1e-4, "lora": {"rank": 8, "alpha": 16}}
    settings = {
        **SHORT,
        "datasets": {"slake": {"embedded": 10}},
        "models": {"4.1v": {"base": {"path": str(slice_of_9b)}}},
        "data": {"max_image_side": 112},
        "sft": {**training, "precision": "bf16"},
        "preferences": {"own_answers": False, "max_pairs": 8},
        "dpo": training,
        "evaluation": {
            "max_new_tokens": 2,
            "max_validation_rows": 4,
            "blank_image": False,
            "shuffled_image": False,
        },
    }
    return finished(start(settings), RUN)


def test_it_is_a_checkpoint_in_shards(slice_of_9b):
    index = files.read_json(slice_of_9b / INDEX)
    shards = set(index["weight_map"].values())
    assert len(shards) > 2 and {path.name for path in slice_of_9b.glob("*.safetensors")} == shards
    assert 1e9 < sum((slice_of_9b / name).stat().st_size for name in shards) < 3e9
    with safe_open(slice_of_9b / index["weight_map"]["lm_head.weight"], "pt") as weights:
        assert weights.get_tensor("lm_head.weight").dtype == BF16
    assert index["weight_map"].keys() >= {
        "model.language_model.layers.1.mlp.gate_up_proj.weight",
        "model.visual.blocks.1.attn.qkv.weight",
    }


def test_the_chain_comes_to_an_evaluation(chain):
    stages = files.read_json(chain / f"eval/{RUN}.json")["stages"]
    assert list(stages) == ["untrained", "sft", "dpo"]
    for stage in ("sft", "dpo"):
        metrics = files.read_json(chain / stage / RUN / "metrics.json")
        assert metrics["steps"] == 2 and 0 < metrics["final_loss"] < 30
        assert metrics["trainable_parameters"] == 8 * 2 * 74368  # rank, layers, widths in and out


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_an_adapter_of_true_width_is_saved_in_fp32(chain, stage):
    found = load_file(chain / stage / RUN / "adapter_model.safetensors")
    assert len(found) == 2 * 6 * true_width.LAYERS
    assert {value.dtype for value in found.values()} == {torch.float32}
    moved = [value for name, value in found.items() if "lora_B" in name]
    assert all(value.isfinite().all() and value.any() for value in moved)


def test_merged_and_exported_it_says_the_same(chain, slice_of_9b, tmp_path, monkeypatch):
    monkeypatch.chdir(chain.folder)  # adapters name their base from there
    trained = chain / "dpo" / RUN
    ids = torch.arange(3, 43)[None]

    def logits(model) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=ids).logits.float()

    exact = logits(loading.model(trained, torch.float32, CPU))
    gc.collect()
    merged = loading.merged(trained, torch.float32, CPU)
    assert (logits(merged) - exact).abs().max() < 1e-4 * exact.abs().max()
    del merged
    gc.collect()
    exported = tmp_path / "exported"
    export.export_model(trained, "4.1v", "base", exported)
    # Under the hub's names, each in the file where the hub has it.
    assert (
        files.read_json(exported / INDEX)["weight_map"] == files.read_json(slice_of_9b / INDEX)["weight_map"]
    )
    loaded = loading.model(exported, BF16, CPU)
    assert {value.dtype for value in loaded.parameters()} == {BF16}
    error = (logits(loaded) - exact).norm() / exact.norm()
    assert error < 0.02  # bf16 keeps eight bits
