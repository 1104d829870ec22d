"""Models that LLaMA-Factory, ms-swift and transformers 4 wrote load as they are: every weight, and the same answer.

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
from test_loading import OLD_TEXTS, in_older_layout

from workflow_scripts import evaluate as command
from workflow_scripts import export
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.models import loading, processors, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import convert, download, sft

FOLDER = Path(__file__).parent / "foreign"
WRITTEN = sorted(path.parent for path in FOLDER.glob("*/*/answers.json"))
VERSION_OF = {version.architecture: name for name, version in reversed(VERSIONS.items())}  # the first of each
EXPERT = re.compile(r"\.experts\.\d+\.")  # one by one in files, all in one tensor in memory
CPU = torch.device("cpu")
SETTINGS = """
datasets: {slake: {reader: slake, embedded: 12}}
evaluation: {max_new_tokens: 4, gpus: 0}
tracking: []
"""
TRAINING = """
models: {{4.1v: {{thinking: {{path: {}}}}}}}
sft: {{gpus: 0, max_steps: 2, batch_size: 4, learning_rate: 1.0e-3, gradient_checkpointing: false}}
"""


def copied(written: Path, target: Path) -> Path:
    shutil.copytree(written, target)
    if not (target / "whole").is_dir():
        shutil.copytree(FOLDER / "llamafactory-0.9.5" / written.name / "whole", target / "whole")
    for path in target.glob("*/tokenizer_config.json"):
        shutil.copyfile(standins.FOLDER / "tokenizer.json", path.with_name("tokenizer.json"))
    return target


@pytest.fixture(params=WRITTEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def written(request, tmp_path, monkeypatch) -> Path:
    """The folder of what a tool wrote, a copy of which is the working folder."""
    monkeypatch.chdir(copied(request.param, tmp_path / "written"))
    return request.param


def model(path: str):
    return loading.model(Path(path), torch.float32, CPU)


def test_each_tool_is_there_with_each_architecture():
    assert {(path.parent.name, path.name) for path in WRITTEN} >= {
        (tool, architecture)
        for tool in ("llamafactory-0.9.5", "ms-swift-4.6.0")
        for architecture in VERSION_OF
    } | {("transformers-4.57.6", "glm4v_moe")}


def test_a_whole_model_holds_every_weight_of_its_file(written):
    expected = {name: tensor.float() for name, tensor in load_file("whole/model.safetensors").items()}
    found = dict(model("whole").state_dict())
    assert sum(tensor.numel() for tensor in found.values()) == sum(
        tensor.numel() for tensor in expected.values()
    )
    same = [name for name in expected if not EXPERT.search(name)]
    assert len(same) > 20
    assert all(torch.equal(found[name], expected[name]) for name in same)


def test_an_adapter_holds_every_weight_of_its_file(written):
    found = dict(model("adapter").state_dict())
    written = load_file("adapter/adapter_model.safetensors")
    expected = {name: tensor for name, tensor in written.items() if not EXPERT.search(name)}
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


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Path, Layout]:
    """A configuration, and results with a converted set."""
    root = tmp_path_factory.mktemp("results")
    (root / "config.yaml").write_text(SETTINGS)
    settings, layout = load([root / "config.yaml"]), Layout(root / "results")
    download.download_source(settings, layout, "slake")
    convert.convert(settings, layout, Run("slake", "4.1v", "thinking"))
    return root / "config.yaml", layout


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("llamafactory-0.9.5/glm4v/whole", ["whole: its chat template cannot show an image; ours is taken"]),
        pytest.param(
            "llamafactory-0.9.5/glm4v/adapter",
            ["adapter: its chat template cannot show an image; ours is taken"],
            marks=pytest.mark.slow,
        ),
        pytest.param("ms-swift-4.6.0/glm4v/whole", [], marks=pytest.mark.slow),
        ("ms-swift-4.6.0/glm4v/adapter", []),
    ],
)
def test_evaluate_asks_it_and_says_when_our_template_is_taken(
    results, tmp_path, monkeypatch, caplog, path, said
):
    config, layout = results
    folder, name = (FOLDER / path).parent, Path(path).name
    monkeypatch.chdir(copied(folder, tmp_path / "written"))
    flags = ["--config", str(config), "--results", str(layout.root), "--output", "scores.json"]
    flags += ["--model_version", "4.1v", "--mode", "thinking", "--test_datasets", "slake"]
    with caplog.at_level(logging.WARNING):
        assert command.main([*flags, "--model_path", name]) == 0
    assert [message for message in caplog.messages if "chat template" in message] == said
    assert (
        sum("was trained elsewhere, and writes our form in no style" in line for line in caplog.messages) == 1
    )
    assert files.read_json("scores.json")["asked"]["reading"] == "lenient"
    assert files.read_json("scores.json")["overall"]["n"] > 0


def test_a_model_of_another_tool_is_exported_without_figures(tmp_path, monkeypatch, capsys):
    written = FOLDER / "ms-swift-4.6.0" / "glm4v"
    monkeypatch.chdir(copied(written, tmp_path / "written"))
    adapter = ["--model_path", "adapter", "--model_version", "4.1v", "--mode", "thinking"]
    assert export.main([*adapter, "--output", "merged", "--adapter"]) == 0  # it is on the vision tower too
    assert "model.safetensors" in capsys.readouterr().out
    # In the base's bf16.
    assert answer(model("merged")) == pytest.approx(answer(model("adapter")), abs=5e-2)
    card = Path("merged", "README.md").read_text()
    assert "its files do not say" in card and "| Run |" not in card
    with pytest.raises(UserError, match="not there yet"):
        export.main([*adapter, "--output", "merged"])


@pytest.mark.parametrize(
    ("tool", "layout_of_today"),
    [("llamafactory-0.9.5", True), ("llamafactory-0.9.5", False), ("ms-swift-4.6.0", True)],
)
def test_an_adapter_of_another_tool_is_trained_on(results, tmp_path, monkeypatch, tool, layout_of_today):
    """Every weight of it moves by a step or two of AdamW, and so does not begin anew."""
    folder = copied(FOLDER / tool / "glm4v", tmp_path / "written")
    monkeypatch.chdir(folder)
    adapter = folder / "adapter"
    if not layout_of_today:
        adapter = in_older_layout(adapter, folder / "older", OLD_TEXTS[0])
    Path("config.yaml").write_text(SETTINGS + TRAINING.format(adapter))
    settings, layout, run = (
        load([Path("config.yaml")]),
        Layout(tmp_path / "results"),
        Run("slake", "4.1v", "thinking"),
    )
    shutil.copytree(results[1].root, layout.root, symlinks=True)
    download.download_model(settings, layout, "4.1v", "thinking")
    sft.stage(settings, layout, run, layout.model("4.1v", "thinking"))

    before, after = (
        {loading.renamed(key): value for key, value in load_file(path / "adapter_model.safetensors").items()}
        for path in (folder / "adapter", layout.trained("sft", run))
    )
    assert before.keys() == after.keys()
    moved = {key: (after[key] - before[key].float()).abs() for key in before}
    assert all(0 < change.max() < 3e-3 for change in moved.values())
