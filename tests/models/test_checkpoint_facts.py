"""The stand-ins as saved have what is known of the published checkpoints: `checkpoint_facts.yaml`."""

import re
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from workflow_scripts.base import files
from workflow_scripts.models import processors, standins
from workflow_scripts.models.catalogue import VERSIONS

FACTS = files.read_yaml(Path(__file__).with_name("checkpoint_facts.yaml"))
SOURCES = FACTS.pop("sources")
CASES = [
    pytest.param(version, file, fact, id=f"{version}-{file}-{fact['key']}")
    for version, known in FACTS.items()
    for file in ("config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json")
    for fact in known[file]
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("standins")
    for version in FACTS:
        standins.save(VERSIONS[version], "thinking", root / version)
    return root


def content(folder: Path, file: str) -> dict:
    """A file as the hub has it; transformers 5 saves the image processor within processor_config.json."""
    if file == "preprocessor_config.json" and not (folder / file).is_file():
        return files.read_json(folder / "processor_config.json")["image_processor"]
    return files.read_json(folder / file)


@pytest.mark.parametrize("version, file, fact", CASES)
def test_a_saved_file_has_what_is_known(saved, version, file, fact):
    if fact["value"] == "unknown":
        pytest.skip(f"{file}: {fact['key']} is unknown")
    found = content(saved / version, file)
    for key in fact["key"].split("."):
        found = found[key]
    expected = fact["value"]
    if "token_id" in fact["key"]:
        identity = AutoTokenizer.from_pretrained(saved / version).convert_tokens_to_ids
        expected = identity(expected)
    assert (found == expected) != ("scaled" in fact), (found, expected)
    assert fact["source"]


@pytest.mark.parametrize("version", FACTS)
def test_tokens_are_whole_and_flagged_as_published(saved, version):
    words = AutoTokenizer.from_pretrained(saved / version)
    flags = {token.content: token.special for token in words.added_tokens_decoder.values()}
    known = FACTS[version]["tokens"]
    assert {token: flags[token] for token in known["special"] + known["not_special"]} == {
        **dict.fromkeys(known["special"], True),
        **dict.fromkeys(known["not_special"], False),
    }


@pytest.mark.parametrize("version", FACTS)
def test_the_template_renders_the_published_dialogue(saved, version):
    processor = processors.load(saved / version, VERSIONS[version], 112)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}
    for fact in FACTS[version]["chat_template"]:
        rendered = processor.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
        assert rendered == fact["text"] and fact["source"]


def test_the_weights_are_named_as_the_loaded_checkpoints(saved):
    with safe_open(saved / "4.1v/model.safetensors", "pt") as weights:
        assert set(FACTS["4.1v"]["model.safetensors"]["keys"]) <= set(weights.keys())


def test_every_source_is_named():
    used = [case.values[2].get("source") for case in CASES]
    named = {name for source in used if source for name in (source if isinstance(source, list) else [source])}
    assert {re.split("[;:]", name)[0] for name in named} <= set(SOURCES)
