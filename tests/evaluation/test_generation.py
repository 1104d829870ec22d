"""What is read of a generation, and that nothing but the request decides how it is made."""

from types import SimpleNamespace

import pytest
from peft import get_peft_model

from workflow_scripts.evaluation.generation import Generator
from workflow_scripts.models import adapters, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue


@pytest.fixture(
    params=[(version, mode) for version in VERSIONS for mode in ("thinking", "base")], ids="_".join
)
def asked(request):
    """(a generator of the stand-in, the answer format)"""
    version, mode = VERSIONS[request.param[0]], request.param[1]
    processor = standins.processor(version)
    dialogue = Dialogue(processor, request.param[0], mode)
    return Generator(standins.untrained_model(version), processor, dialogue, 1, 8), version.answer_format(
        mode
    )


@pytest.mark.parametrize("end", ["<|user|>", "<|endoftext|>", "<|observation|>", ""])
def test_an_answer_is_readable_whichever_token_ended_it(asked, end):
    generator, answer_format = asked
    text = answer_format.write("Left lung", "The left side is dark.")
    if end == "" and not text.endswith("</answer>"):
        pytest.skip("no tag of this form ends generation")
    ids = generator.processor.tokenizer.encode(text + end, add_special_tokens=False)
    # `generate` pads what ended before others of its batch did.
    generation = generator._decode(ids + [generator.processor.tokenizer.pad_token_id] * 2)
    assert (generation.text, generation.truncated) == (text, False)
    assert answer_format.read(generation.text) == "Left lung"


def test_a_cut_off_answer_is_truncated(asked):
    generator, _ = asked
    ids = generator.processor.tokenizer.encode("<think>The left", add_special_tokens=False)
    assert generator._decode(ids).truncated


LEAKING = {
    "temperature": 0.8,
    "top_p": 0.6,
    "top_k": 2,
    "do_sample": True,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 8,
    "suppress_tokens": [5],
}


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_the_checkpoints_generation_settings_are_recorded_and_change_nothing(adapter, tmp_path):
    version = VERSIONS["4.1v"]
    processor = standins.processor(version)
    record = {"messages": [{"role": "user", "content": "Repeat: chest"}], "images": []}

    def written(settings):
        model = standins.pretrained_model(version)
        model.generation_config.update(**settings)
        if adapter:
            lora = SimpleNamespace(rank=2, alpha=4, dropout=0.0, vision=False, peft={})
            model = get_peft_model(model, adapters.lora_config(model, lora))
        generator = Generator(model.eval(), processor, Dialogue(processor, "4.1v", "base"), 1, 12)
        return generator.checkpoint_settings, generator.answer([record], tmp_path)

    assert written(LEAKING) == (LEAKING, written({})[1])
    assert written({})[0] == {}
