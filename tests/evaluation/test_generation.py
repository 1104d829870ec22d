"""What is read of a generation, and that nothing but the request decides how it is made."""

from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from workflow_scripts.evaluation.generation import Generator
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue


@pytest.fixture(params=[(version, mode) for version in VERSIONS for mode in ("thinking", "base")], ids="_".join)
def asked(request):
    """(a generator of the stand-in, the answer format)"""
    version, mode = VERSIONS[request.param[0]], request.param[1]
    processor = standins.processor(version)
    dialogue = Dialogue(processor, request.param[0], mode)
    return Generator(standins.untrained_model(version), processor, dialogue, 1, 8), version.answer_format(mode)


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
    generator, answer_format = asked
    ids = generator.processor.tokenizer.encode("<think>The left", add_special_tokens=False)
    assert generator._decode(ids).truncated
