"""How models that were trained elsewhere were prompted: known by their files, and found by asking."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.models import prompt_styles, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.prompt_styles import (
    LLAMA_FACTORY,
    LLAMA_FACTORY_NO_THINKING,
    OURS,
    STYLES,
    SWIFT,
    opened,
    recognised,
)

FOREIGN = Path(__file__).parent / "foreign"
MESSAGES = [
    {"role": "user", "content": "<image>Where?"},
    {"role": "assistant", "content": "<think>Dark.</think><answer>Left</answer>"},
    {"role": "user", "content": "Which?"},
]


@pytest.mark.parametrize(
    ("folder", "style"),
    [
        ("llamafactory-0.9.5/glm4v/whole", LLAMA_FACTORY),
        ("llamafactory-0.9.5/glm4v/adapter", LLAMA_FACTORY),
        ("ms-swift-4.6.0/glm4v/whole", OURS),  # its args.json was not kept
        ("transformers-4.57.6/glm4v_moe/adapter", OURS),
    ],
)
def test_a_folder_is_recognised_by_what_the_tools_wrote(folder, style):
    assert recognised(FOREIGN / folder) == style
    assert prompt_styles.is_foreign(FOREIGN / folder)


@pytest.mark.parametrize(
    ("name", "text", "style"),
    [
        ("args.json", '{"template": "glm4_5v", "enable_thinking": null}', SWIFT),
        ("args.json", '{"template": "glm4_5v", "enable_thinking": true}', OURS),
        ("args.json", '{"template": "glm4v", "enable_thinking": null}', OURS),
        ("args.json", '{"lr": 1}', OURS),
        ("args.json", "[" * 10**5, OURS),
        ("training_args.yaml", "template: glm4v\nenable_thinking: false\n", LLAMA_FACTORY_NO_THINKING),
        ("training_args.yaml", "template: glm4v\n", LLAMA_FACTORY),
        ("training_args.yaml", "{", LLAMA_FACTORY),
        ("trainer_log.jsonl", "{}\n", LLAMA_FACTORY),
        ("README.md", "---\ntags:\n- llama-factory\n- lora\n---\n", LLAMA_FACTORY),
        ("README.md", "---\ntags:\n- trl\n---\n", OURS),
        ("chat_template.jinja", VERSIONS["4.1v"].chat_template(), OURS),
    ],
)
def test_a_folder_is_recognised_by_a_file(tmp_path, name, text, style):
    (tmp_path / name).write_text(text)
    assert recognised(tmp_path) == style


@given(data=st.binary(max_size=60))
def test_any_file_is_read_or_passed_over(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    for name in ("args.json", "training_args.yaml", "README.md", "chat_template.jinja"):
        (folder / name).write_bytes(data)
    assert recognised(folder) in STYLES.values()
    shutil.rmtree(folder)


def test_own_models_are_not_foreign(tmp_path):
    (tmp_path / "metrics.json").write_text('{"train_loss": 1}')
    assert prompt_styles.is_foreign(tmp_path)
    (tmp_path / "metrics.json").write_text('{"stage": "sft"}')
    assert not prompt_styles.is_foreign(tmp_path)
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "manifest.json").write_text("{}")
    assert not prompt_styles.is_foreign(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["thinking", "base"])
@pytest.mark.parametrize(
    ("style", "tail", "opening"),
    [
        (LLAMA_FACTORY, "<|assistant|><think>", "<think>"),
        (LLAMA_FACTORY_NO_THINKING, "<|assistant|><think>\n\n</think>\n\n", "<think>\n\n</think>"),
        (SWIFT, "<|assistant|>\n<think></think>", "<think></think>"),
    ],
)
def test_a_prompt_is_the_tools_and_its_thought_belongs_to_the_answer(version, mode, style, tail, opening):
    prompt = Dialogue(standins.processor(VERSIONS[version]), version, mode, style).prompt(MESSAGES)
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    assert prompt.startswith(f"[gMASK]<sop><|user|>\n{image}Where?<|assistant|>\n")
    assert prompt.endswith(f"<|user|>\nWhich?{tail}")
    assert "Dark." not in prompt and "/nothink" not in prompt and "<answer>Left</answer>" in prompt
    assert opened(prompt, style) == opening
    form = VERSIONS[version].answer_format(mode)
    written = form.write("CT").removeprefix("<think></think>")
    rest = "\n\n</think>\n\n\n" if style == LLAMA_FACTORY else "\n"
    assert form.read(opening + rest + written) == "CT"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["thinking", "base"])
def test_nothing_is_put_before_the_answers_of_our_own_models(version, mode):
    dialogue = Dialogue(standins.processor(VERSIONS[version]), version, mode)
    assert opened(dialogue.prompt(MESSAGES[:1]), OURS) == ""


def test_a_thought_that_a_template_opens_is_read_in_any_style():
    assert opened("<|user|>\nWhich?<|assistant|>\n<think>\n", OURS) == "<think>"
    assert opened("<think></think><|user|>\nWhich?<|assistant|>\n", OURS) == ""
