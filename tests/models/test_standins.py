import pytest

from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS


def test_the_added_tokens_are_whole_and_in_the_order_of_the_real_tokenizer():
    words = standins.tokenizer()
    ids = words.convert_tokens_to_ids(standins.ADDED_TOKENS)
    assert ids == list(range(len(words) - len(ids), len(words)))
    assert [words.tokenize(token) for token in standins.ADDED_TOKENS] == [
        [token] for token in standins.ADDED_TOKENS
    ]


def test_decoding_keeps_the_markup_of_thoughts_and_answers():
    words = standins.tokenizer()
    text = "<think>CT</think><answer>Liver</answer>/nothink"
    assert words.decode(words.encode(f"[gMASK]<sop>{text}<|user|>"), skip_special_tokens=True) == text


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_the_weights_are_small_and_fit_the_model(version):
    assert standins.weights_file(version).stat().st_size < 3 * 2**20
    model = standins.pretrained_model(version)
    assert model.get_output_embeddings().weight.shape[0] == len(standins.tokenizer())
