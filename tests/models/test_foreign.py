"""Models that LLaMA-Factory and ms-swift wrote load as they are: every weight, and the same answer.

foreign/README.md says how they were written.
"""

import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from foreign.asking import answer
from safetensors.torch import load_file

from workflow_scripts import evaluate as command
from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.models import loading, processors, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import convert, download

FOLDER = Path(__file__).parent / "foreign"
WRITTEN = sorted(path.parent for path in FOLDER.glob("*/*/answers.json"))
VERSION_OF = {version.architecture: name for name, version in VERSIONS.items()}
CPU = torch.device("cpu")
SETTINGS = """
datasets: {slake: {reader: slake, embedded: 12}}
evaluation: {max_new_tokens: 4, batch_size: 64, gpus: 0}
tracking: []
"""


def copied(written: Path, target: Path) -> Path:
    shutil.copytree(written, target)
    for path in target.glob("*/tokenizer_config.json"):
        shutil.copyfile(standins.FOLDER / "tokenizer.json", path.with_name("tokenizer.json"))
    return target


@pytest.fixture(params=WRITTEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def written(request, tmp_path, monkeypatch) -> Path:
    """The folder that a tool was run in, with what it wrote."""
    monkeypatch.chdir(copied(request.param, tmp_path / "written"))
    return request.param


def model(path: str):
    return loading.model(Path(path), torch.float32, CPU)


def test_each_tool_is_there_with_each_architecture():
    assert {(path.parent.name, path.name) for path in WRITTEN} >= {
        (tool, architecture)
        for tool in ("llamafactory-0.9.5", "ms-swift-4.6.0")
        for architecture in VERSION_OF
    }


def test_a_whole_model_holds_every_weight_of_its_file(written):
    expected = {name: tensor.float() for name, tensor in load_file("whole/model.safetensors").items()}
    found = dict(model("whole").state_dict())
    assert sum(tensor.numel() for tensor in found.values()) == sum(
        tensor.numel() for tensor in expected.values()
    )
    experts = re.compile(r"\.experts\.\d+\.")  # one by one in files, in one tensor in memory
    same = [name for name in expected if not experts.search(name)]
    assert len(same) > 20
    assert all(torch.equal(found[name], expected[name]) for name in same)


def test_an_adapter_holds_every_weight_of_its_file(written):
    found = dict(model("adapter").state_dict())
    expected = load_file("adapter/adapter_model.safetensors")
    assert len(expected) > 10
    for name, tensor in expected.items():
        kept = found[re.sub(r"\.(lora_[AB])\.", r".\1.default.", name)]
        assert torch.equal(kept, tensor.float())


@pytest.mark.parametrize("name", ["whole", "adapter"])
def test_the_answer_is_the_one_of_the_tools_own_libraries(written, name):
    expected = files.read_json(written / "answers.json")
    assert answer(model(name)) == pytest.approx(expected[name], abs=1e-4)
    assert expected["whole"] != pytest.approx(expected["adapter"], abs=1e-2)


@pytest.mark.parametrize("name", ["whole", "adapter"])
def test_a_processor_is_there_and_shows_images(written, name):
    version = VERSIONS[VERSION_OF[written.name]]
    found = processors.load(Path(name), version, 112)
    parts = [{"type": "image"}, {"type": "text", "text": "Where?"}]
    prompt = found.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    assert prompt.count(found.image_token) == 1


def test_evaluate_takes_our_template_where_llama_factory_left_one_of_text(tmp_path, caplog):
    copied(FOLDER / "llamafactory-0.9.5/glm4v", tmp_path / "written")
    (tmp_path / "config.yaml").write_text(SETTINGS)
    settings, layout = load([tmp_path / "config.yaml"]), Layout(tmp_path / "results")
    run = Run("slake", "4.1v", "thinking")
    download.download_source(settings, layout, "slake")
    convert.convert(settings, layout, run)
    path, output = tmp_path / "written/whole", tmp_path / "whole.json"
    flags = ["--config", str(tmp_path / "config.yaml"), "--results", str(layout.root)]
    flags += ["--model_version", "4.1v", "--mode", "thinking", "--test_datasets", "slake"]
    with caplog.at_level(logging.WARNING):
        assert command.main([*flags, "--model_path", str(path), "--output", str(output)]) == 0
    assert f"{path}: its chat template cannot show an image; ours is taken" in caplog.messages
    assert files.read_json(output)["overall"]["n"] > 0
