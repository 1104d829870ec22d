"""Loading is complete, from any known layout, or an error: no weight is ever a random one or the base's."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from workflow_scripts.base import scratch
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import bases, loading, processors, standins
from workflow_scripts.models.adapters import lora_config
from workflow_scripts.models.catalogue import VERSIONS

REPOSITORY = "zai-org/GLM-4.1V-9B-Thinking"
TEXT = "model.language_model."
OLD_TEXTS = ["model.", "language_model.model.", "language_model."]
TEXT_ONLY = (
    "[gMASK]<sop>{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>\n' ~ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(version, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(version) / "whole"
    standins.save(VERSIONS[version], "thinking", folder)
    return folder


@pytest.fixture(scope="module")
def adapter(whole) -> Path:
    """An adapter whose every weight differs from a new one's."""
    model = loading.model(whole, torch.float32, torch.device("cpu"))
    adapted = get_peft_model(model, lora_config(model, Lora(rank=2)))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    folder = whole.parent / "adapter"
    adapted.save_pretrained(folder)
    return folder


def variant(folder: Path, target: Path, change) -> Path:
    """`folder` with `change` made to its weights by name, a dictionary."""
    shutil.copytree(folder, target)
    (file,) = target.glob("*.safetensors")
    save_file(
        {name: tensor.contiguous() for name, tensor in change(load_file(file)).items()},
        file,
        {"format": "pt"},
    )
    return target


def renamed(pattern: str, replacement: str):
    return lambda weights: {re.sub(pattern, replacement, name): tensor for name, tensor in weights.items()}


def without(pattern: str):
    return lambda weights: {name: tensor for name, tensor in weights.items() if not re.search(pattern, name)}


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return dict(loading.model(folder, torch.float32, torch.device("cpu")).state_dict())


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("old", OLD_TEXTS)
def test_older_layouts_of_a_whole_model_are_the_same_model(whole, tmp_path, old):
    def change(weights):
        head = "language_model.lm_head." if old == "language_model.model." else "lm_head."
        names = {TEXT: old, "model.visual.": "visual.", "lm_head.": head}
        return {re.sub("|".join(names), lambda hit: names[hit[0]], name): weights[name] for name in weights}

    older = variant(whole, tmp_path / "older", change)
    assert_same(loaded(older), loaded(whole))
    # And it is saved in today's layout.
    loading.model(older, torch.float32, torch.device("cpu")).save_pretrained(tmp_path / "saved")
    (saved,) = (tmp_path / "saved").glob("*.safetensors")
    assert load_file(saved).keys() == load_file(whole / "model.safetensors").keys()


def in_older_layout(adapter: Path, target: Path, old: str, **changes) -> Path:
    """A copy of the adapter whose weights and configuration name text layers as they were called, with `changes` of it."""
    older = variant(adapter, target, renamed(re.escape(TEXT), old))
    config = json.loads((older / "adapter_config.json").read_text())
    for field in ("target_modules", "target_parameters"):
        config[field] = config[field] and [name.replace(TEXT, old) for name in config[field]]
    (older / "adapter_config.json").write_text(json.dumps(config | changes))
    return older


@pytest.mark.parametrize("old", [TEXT, *OLD_TEXTS])
def test_older_layouts_of_an_adapter_are_the_same_adapter(adapter, tmp_path, old):
    older = in_older_layout(adapter, tmp_path / "older", old)
    assert_same(loaded(older), loaded(adapter))


@pytest.mark.parametrize("old", [TEXT, *OLD_TEXTS])
def test_a_layers_own_scale_is_found_in_older_layouts(adapter, tmp_path, old):
    scaled = {f"{old}layers.0.self_attn.q_proj": 6}
    older = in_older_layout(adapter, tmp_path / "older", old, alpha_pattern=scaled)
    found = loading.model(older, torch.float32, torch.device("cpu"))
    scales = {
        name: module.scaling["default"]
        for name, module in found.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert [name for name, scale in scales.items() if scale == 6 / 2] == [
        f"base_model.model.{TEXT}layers.0.self_attn.q_proj"
    ]


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_upon_other_weights_than_its_bases_is_refused(adapter, tmp_path, begun):
    """peft takes the beginning out of the base's weights as it loads: anew, by chance, and twice for a reference."""
    shutil.copytree(adapter, tmp_path / "begun")
    file = tmp_path / "begun" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": begun}))
    with pytest.raises(UserError, match=f"init_lora_weights {begun} has changed the base; save it again"):
        loaded(tmp_path / "begun")


def test_the_name_of_the_adapter_may_be_left_in_its_keys(adapter, tmp_path):
    named = variant(adapter, tmp_path / "named", renamed(r"\.weight$", ".default.weight"))
    assert_same(loaded(named), loaded(adapter))


def test_an_adapter_is_loaded_as_it_was(adapter):
    found = loaded(adapter)
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        kept = found.get(name) if name in found else found[re.sub(r"(lora_[AB])", r"\1.default", name)]
        assert torch.equal(kept, tensor)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (renamed("^model", "transformer"), r"missing .*unexpected \(transformer\.language_model"),
        (without("^lm_head"), r"1 missing \(lm_head\.weight\); fetch it again"),
        (without("visual"), r"missing \(model\.visual\..*, …\)"),
        (without("layers.3"), r"missing \(model\.language_model\.layers\.3\..*, …\)"),
        (lambda weights: weights | {"extra.weight": torch.ones(1)}, r"1 unexpected \(extra\.weight\)"),
        (lambda weights: weights | {"lm_head.weight": torch.ones(3, 4)}, r"1 missing \(lm_head\.weight \(of"),
    ],
)
def test_a_whole_model_that_is_not_complete_is_refused(whole, tmp_path, change, error):
    broken = variant(whole, tmp_path / "broken", change)
    with pytest.raises(UserError, match=error) as caught:
        loaded(broken)
    assert str(caught.value).startswith(f"{broken}: ")


def test_an_expert_that_is_missing_is_refused(version, whole, tmp_path):
    if VERSIONS[version].architecture != "glm4v_moe":
        pytest.skip("no experts")
    broken = variant(whole, tmp_path / "broken", without(r"layers\.2\.mlp\.experts\.1\.down_proj"))
    with pytest.raises(UserError, match=r"missing \(.*layers\.2\.mlp\.experts"):
        loaded(broken)


def test_weights_that_cannot_be_read_are_refused(whole, adapter, tmp_path):
    for folder in (whole, adapter):
        broken = tmp_path / folder.name
        shutil.copytree(folder, broken)
        (file,) = broken.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(UserError, match=f"{broken}: cannot be loaded as"):
            loaded(broken)
        file.unlink()
        with pytest.raises(UserError, match=f"{broken}: cannot be loaded as"):
            loaded(broken)


def test_a_head_that_is_tied_needs_no_weights(whole, tmp_path):
    tied = variant(whole, tmp_path / "tied", without("^lm_head"))
    config = json.loads((tied / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (tied / "config.json").write_text(json.dumps(config))
    found = loaded(tied)
    assert torch.equal(found["lm_head.weight"], found["model.language_model.embed_tokens.weight"])


def _shorter(weights):
    name = next(iter(weights))
    return weights | {name: weights[name][:, :1]}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda weights: {}, r"missing \(base_model.*language_model"),
        (without(r"layers\.[23]"), r"missing \(.*layers\.2\..*, …\)"),
        (renamed("language_model", "tower"), r"missing \(.*unexpected \(.*tower"),
        (renamed(r"^base_model\.model\.", ""), "cannot be loaded as an adapter of"),
        (
            lambda weights: weights | {"base_model.model.extra.lora_A.weight": torch.ones(2, 2)},
            r"1 unexpected \(",
        ),
        (_shorter, r"1 missing \("),
    ],
)
def test_an_adapter_that_is_not_complete_is_refused(version, adapter, tmp_path, change, error):
    broken = variant(adapter, tmp_path / "broken", change)
    with pytest.raises(UserError, match=error) as caught:
        loaded(broken)
    assert str(caught.value).startswith(f"{broken}: ")


def test_a_base_named_by_its_repository_is_found(whole, adapter, tmp_path, monkeypatch):
    of_hub = variant(adapter, tmp_path / "of-hub", dict)
    config = json.loads((of_hub / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = REPOSITORY
    (of_hub / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=rf"{REPOSITORY}: the base model .* neither in .*; fetch it with"):
        loading.base_of(of_hub)

    snapshot = tmp_path / "cache/models--zai-org--GLM-4.1V-9B-Thinking/snapshots/abc"
    shutil.copytree(whole, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert loading.base_of(of_hub) == snapshot
    assert_same(loaded(of_hub), loaded(adapter))

    downloaded = bases.DOWNLOADED / "4.1v_thinking"
    shutil.copytree(whole, downloaded)
    (downloaded / "manifest.json").write_text(json.dumps({"origin": {"repository": REPOSITORY}}))
    assert loading.base_of(of_hub) == downloaded


def test_a_model_of_another_version_is_refused(version, whole, adapter):
    own = VERSIONS[version].architecture
    fitting = [name for name, known in VERSIONS.items() if known.architecture == own]
    other = next(name for name in VERSIONS if name not in fitting)
    for folder in (whole, adapter):
        with pytest.raises(
            UserError,
            match=rf"model_type is .*; take --model_version {' or '.join(fitting)}, or another model",
        ):
            loading.check_version(folder, VERSIONS[other])
    with pytest.raises(UserError, match=f"--model_version {fitting[0]}"):
        processors.load(whole, VERSIONS[other], 112)
    loading.check_version(adapter, VERSIONS[version])


@pytest.mark.parametrize(
    ("key", "said"),
    [(("image_token_id",), "image_token_id"), (("vision_config", "spatial_merge_size"), "merge_size")],
)
def test_images_that_the_model_would_not_see_are_refused(whole, version, tmp_path, key, said):
    shutil.copytree(whole, tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    config = json.loads(file.read_text())
    place = config[key[0]] if len(key) == 2 else config
    place[key[-1]] += 1
    file.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=f"other: {said} is .* for its processor and {place[key[-1]]} for its model"
    ):
        processors.load(tmp_path / "other", VERSIONS[version], 112)


def test_a_chat_template_that_shows_no_image_is_replaced_by_ours(version, whole, tmp_path, caplog):
    kept = processors.load(whole, VERSIONS[version], 112)
    assert not caplog.records
    foreign = tmp_path / "foreign"
    shutil.copytree(whole, foreign)
    for template in (TEXT_ONLY, TEXT_ONLY.replace("~ message['content']", "+ message['content']")):
        caplog.clear()
        (foreign / "chat_template.jinja").write_text(template)
        found = processors.load(foreign, VERSIONS[version], 112)
        assert found.chat_template == kept.chat_template
        assert [record.getMessage() for record in caplog.records] == [
            f"{foreign}: its chat template cannot show an image; ours is taken"
        ]


def test_weights_are_read_from_the_copy_on_the_nodes_disk_and_named_by_their_own_place(
    whole, tmp_path, monkeypatch
):
    monkeypatch.setenv(scratch.VARIABLE, str(tmp_path))
    read = []
    load = loading.AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        loading.AutoModelForImageTextToText,
        "from_pretrained",
        lambda place, **options: read.append(place) or load(place, **options),
    )
    model = loading.model(whole, torch.float32, torch.device("cpu"))
    assert read[0].is_relative_to(tmp_path) and model.name_or_path == str(whole)
    scratch._leave(read[0].parents[1])
    assert not read[0].exists()
