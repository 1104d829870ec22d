"""An adapter is found by others through the hub, and by this machine without it."""

from types import SimpleNamespace

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model

from workflow_scripts.base import files
from workflow_scripts.models import adapters, loading, standins
from workflow_scripts.models.catalogue import VERSIONS

HUB = {"repository": "zai-org/GLM-4.1V-9B-Base", "revision": "main", "commit": "0" * 40, "kind": "model"}
CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path):
    standins.save(VERSIONS["4.1v"], "base", tmp_path / "model")
    return tmp_path / "model"


def saved_adapter(base, folder):
    lora = SimpleNamespace(rank=2, alpha=4, dropout=0.0, vision=False, peft={})
    model = loading.model(base, torch.float32, CPU)
    get_peft_model(model, adapters.lora_config(model, lora)).save_pretrained(folder)
    loading.name_base(folder, base)
    return folder


def test_an_adapter_names_its_base_by_hub_id_and_commit_and_loads_offline(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files.write_json(base / "manifest.json", {"origin": HUB, "fingerprint": "1"})
    folder = saved_adapter(base, tmp_path / "adapter")
    stock = PeftConfig.from_pretrained(folder)
    assert (stock.base_model_name_or_path, stock.revision) == (HUB["repository"], HUB["commit"])
    assert loading.base_of(folder) == base

    # As the DPO stage continues it, with peft's own save.
    again = loading.model(folder, torch.float32, CPU, trainable=True)
    again.save_pretrained(tmp_path / "again")
    loading.name_base(tmp_path / "again", loading.base_of(folder))
    config = files.read_json(tmp_path / "again/adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == (HUB["repository"], HUB["commit"])
    assert loading.base_of(tmp_path / "again") == base
    # What a stranger does, whose base comes from the hub.
    whole = loading.model(base, torch.float32, CPU)
    assert isinstance(PeftModel.from_pretrained(whole, tmp_path / "again"), PeftModel)


@pytest.mark.parametrize("origin", [{"embedded": True}, {"path": "/models/mine"}, None])
def test_a_base_that_is_on_no_hub_stays_a_folder(base, tmp_path, origin):
    if origin:
        files.write_json(base / "manifest.json", {"origin": origin, "fingerprint": "1"})
    folder = saved_adapter(base, tmp_path / "adapter")
    config = files.read_json(folder / "adapter_config.json")
    assert (config["base_model_name_or_path"], config.get("revision")) == (str(base), None)
    assert loading.base_of(folder) == base


def test_an_adapter_of_before_is_still_found(base, tmp_path):
    folder = saved_adapter(base, tmp_path / "adapter")
    (folder / loading.LOCAL_BASE).unlink()
    assert loading.base_of(folder) == base
