"""What planning is told of the rows; a row that is too long is refused before anything is trained."""

import pytest

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.training.data import rows


def test_tokens_are_those_of_the_sequences(corpus):
    ours, _ = corpus.sft()
    pairs, _ = corpus.pairs()
    image = corpus.dialogue.image_tokens(112, 112)
    (cost,) = rows.costs(ours.select([ours["id"].index("0.png-0")]), corpus.dialogue, 4096)
    row = ours[ours["id"].index("0.png-0")]
    prompt, completion = len(row["prompt_ids"]) - 1, len(row["completion_ids"])
    assert (cost.images, cost.own_tokens) == (((row["image_paths"][0], image),), prompt + completion)
    assert cost.total_tokens == image + prompt + completion

    pair = pairs[pairs["id"].index("0.png-0")]
    (cost,) = rows.costs(pairs.select([pairs["id"].index("0.png-0")]), corpus.dialogue, 4096)
    answers = len(pair["chosen_ids"]) + len(pair["rejected_ids"])
    assert cost.own_tokens == prompt + answers and cost.total_tokens == 2 * (image + prompt) + answers


def test_a_row_that_is_too_long_is_refused_with_its_id(workplace):
    path = workplace.layout.split(workplace.run, "train")
    records = list(files.read_jsonl(path))
    records[3]["messages"][0]["content"] += " nodule" * 200
    files.write_jsonl(path, records)
    workplace.settings.data.max_tokens = 150
    with pytest.raises(UserError, match=rf"^{records[3]['id']}: \d+ tokens are over data.max_tokens = 150"):
        sft(workplace.settings, workplace.layout, workplace.run, workplace.model)
    assert not list(workplace.layout.checkpoints("sft", workplace.run).glob("checkpoint-*"))


def test_a_thought_goes_up_to_its_closing_tag(corpus):
    ours, _ = corpus.sft()
    decode = corpus.processor.tokenizer.decode
    for row in ours:
        thought = decode(row["completion_ids"][: row["thought_tokens"]])
        assert "Think: " in thought and thought.endswith("</think>")
    assert corpus.dialogue.thought_tokens(corpus.dialogue.tokens("left lung")) == 0
