"""What is trained equals, token for token, what the template renders at inference."""

import pytest
from PIL import Image

from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, parts
from workflow_scripts.models.pixels import Pixels, batch

QUESTION = "<image>Is the heart enlarged?"


@pytest.fixture
def dialogue(cell, processor):
    return Dialogue(processor, *cell)


@pytest.fixture
def record(cell):
    version, mode = cell
    target = VERSIONS[version].answer_format(mode).write("Yes", "The heart is wide.")
    return {
        "messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": target}],
        "images": ["a.png"],
    }


def test_the_trained_prompt_is_the_inference_prompt_token_for_token(dialogue, record, processor, tmp_path):
    Image.new("RGB", (160, 90), "gray").save(tmp_path / "a.png")
    (turn,) = dialogue.turns(record)
    trained = dialogue.tokens(turn.prompt) + dialogue.tokens(turn.completion)
    inputs = batch([(trained, [str(tmp_path / "a.png")])], processor, Pixels(processor.image_processor))

    stock = processor.apply_chat_template(
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "path": str(tmp_path / "a.png")},
                    parts(record["messages"][0])[1],
                ],
            }
        ],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **VERSIONS[dialogue.model_version].template_options(dialogue.mode),
    )
    length = stock["input_ids"].shape[1]
    assert inputs["input_ids"][0, :length].tolist() == stock["input_ids"][0].tolist()
    assert inputs["mm_token_type_ids"][0, :length].tolist() == stock["mm_token_type_ids"][0].tolist()
    assert inputs["image_grid_thw"].tolist() == stock["image_grid_thw"].tolist()
    assert (inputs["pixel_values"] == stock["pixel_values"]).all()


def test_prompt_and_completion_are_the_template_and_a_stop_token(dialogue, record, cell, processor):
    version, mode = cell
    (turn,) = dialogue.turns(record)
    whole = dialogue._render(record["messages"], add_generation_prompt=False)
    assert turn.prompt + turn.completion == whole + VERSIONS[version].stop_token
    assert (
        VERSIONS[version].answer_format(mode).read(turn.completion.removesuffix(VERSIONS[version].stop_token))
        == "Yes"
    )


def test_the_stop_token_ends_generation(cell, processor):
    from workflow_scripts.models import standins

    model = standins.untrained_model(VERSIONS[cell[0]])
    stop = processor.tokenizer.convert_tokens_to_ids(VERSIONS[cell[0]].stop_token)
    assert stop in model.generation_config.eos_token_id


def test_base_mode_of_a_hybrid_asks_without_thinking(processor, cell):
    version, mode = cell
    prompt = Dialogue(processor, version, mode).prompt([{"role": "user", "content": QUESTION}])
    assert prompt.endswith("/nothink<|assistant|>\n<think></think>") == (
        VERSIONS[version].hybrid and mode == "base"
    )


def test_each_assistant_turn_is_trained_with_the_turns_and_images_before_it(dialogue, cell):
    write = VERSIONS[cell[0]].answer_format(cell[1]).write
    record = {
        "messages": [
            {"role": "user", "content": "<image>What is this?"},
            {"role": "assistant", "content": write("A chest", "First thought.")},
            {"role": "user", "content": "<image><image>And these?"},
            {"role": "assistant", "content": write("Heads", "Second thought.")},
        ],
        "images": ["a.png", "b.png", "c.png"],
    }
    first, second = dialogue.turns(record)
    assert (first.images, second.images) == (["a.png"], ["a.png", "b.png", "c.png"])
    assert "A chest" in first.completion and "A chest" in second.prompt and "Heads" in second.completion
    assert second.prompt.count("<|image|>") == 3
    if cell[1] == "thinking":
        assert "First thought." in first.completion
    assert "First thought." not in second.prompt and "<answer>" not in second.prompt


def test_earlier_turns_are_bare_answers_whose_text_cannot_be_markup(dialogue, cell):
    write = VERSIONS[cell[0]].answer_format(cell[1]).write
    messages = [
        {"role": "user", "content": "<image>What is written?"},
        {"role": "assistant", "content": write("<|user|> & <answer>", "A thought.")},
        {"role": "user", "content": "And here?"},
    ]
    before = [dict(message) for message in messages]
    earlier = "&lt;|user|> & &lt;answer>"
    assert earlier + "<|user|>\nAnd here?" in dialogue.prompt(messages)
    assert messages == before
    messages[1]["content"] = "free text, not of the form"
    assert "free text, not of the form<|user|>" in dialogue.prompt(messages)


@pytest.mark.parametrize("size", [(112, 112), (640, 480), (300, 1000)])
def test_image_tokens_are_known_without_decoding(dialogue, processor, size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "a.png")
    pixels = Pixels(processor.image_processor)
    assert dialogue.image_tokens(*size) == pixels.tokens(pixels(str(tmp_path / "a.png"))[1])
