"""What --debug shows of the first batch is what the model is given: tokens, marks, and the tree with every row in it."""

import re

import pytest

from workflow_scripts.training.data.collators import PreferenceCollator, SftCollator
from workflow_scripts.training.data.first_batch import BatchView


@pytest.mark.parametrize("one_sequence", [False, True])
def test_rows_are_read_back_from_the_tensors_with_their_trained_tokens(corpus, one_sequence):
    rows = list(corpus.sft()[0])
    batch = SftCollator(**corpus.collator(), one_sequence=one_sequence)(rows)
    view = BatchView(batch, rows, corpus.processor)
    image = corpus.processor.image_token_id
    for row, shown in zip(rows, view.rows, strict=True):
        without = [token for token in shown.ids if token != image]
        assert without == [token for token in row["prompt_ids"] + row["completion_ids"] if token != image]
        trained = [token for token, marked in zip(shown.ids, shown.trained, strict=True) if marked]
        assert trained == row["completion_ids"] and shown.thought == row["thought_tokens"]


@pytest.mark.parametrize("one_sequence", [False, True])
def test_the_tree_has_each_row_once_and_each_token_once(corpus, one_sequence):
    rows = list(corpus.sft()[0])
    batch = SftCollator(**corpus.collator(), one_sequence=one_sequence)(rows)
    lines = list(BatchView(batch, rows, corpus.processor).lines())
    nodes = [line for line in lines if re.match(r" +\d+ tokens", line)]
    ends = [name for line in nodes if "  <- " in line for name in line.rpartition("  <- ")[2].split(", ")]
    assert sorted(ends) == sorted(row["id"] for row in rows)
    counted = sum(int(re.search(r"\d+", line)[0]) for line in nodes)
    run, whole = (int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:tokens|in its)", lines[0]))
    assert counted == run < whole
    roots = [line for line in nodes if line.startswith("  ") and line[2] != " "]
    assert {".png" in line for line in roots} == {True} and any("<|image|>×" in line for line in roots)
    assert lines[2].count("⟦") == lines[2].count("⟧") == 1 and lines[2].endswith("⟧")
    assert f"{len(rows[0]['completion_ids'])} trained" in lines[1] and rows[0]["id"] in lines[1]


def test_both_sides_of_a_pair_are_shown(corpus):
    rows = list(corpus.pairs()[0])
    batch = PreferenceCollator(**corpus.collator())(rows)
    lines = list(BatchView(batch, rows, corpus.processor).lines())
    decode = corpus.processor.tokenizer.decode
    for side, head, text in (("chosen", *lines[1:3]), ("rejected", *lines[3:5])):
        assert f"first sample, {rows[0]['id']} {side}: " in head
        assert text.partition("⟦")[2].rstrip("⟧") == decode(rows[0][f"{side}_ids"]).replace("\n", "\\n")
    assert (
        sum(
            f"{row['id']} {side}" in line for row in rows for side in ("chosen", "rejected") for line in lines
        )
        >= 2
    )
