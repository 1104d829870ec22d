"""A batch trains what stock TRL's collators would train, and holds each image and shared prefix once."""

import math

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data.collators import IGNORED, PreferenceCollator, SftCollator


def test_the_trained_tokens_are_those_of_trl(corpus):
    ours, stock_rows = corpus.sft()
    batch = SftCollator(**corpus.collator())(list(ours))
    stock = DataCollatorForVisionLanguageModeling(corpus.processor, completion_only_loss=True)(stock_rows)
    for mine, theirs in zip(batch["labels"], stock["labels"], strict=True):
        assert mine[mine != IGNORED].tolist() == theirs[theirs != IGNORED].tolist()


def test_every_row_can_be_followed_through_the_tree(corpus):
    """Gathering the tree's own tokens gives the tails back, but for the last token, which predicts nothing."""
    ours, _ = corpus.sft()
    batch = SftCollator(**corpus.collator())(list(ours))
    gathered = batch["tree"]["input_ids"].flatten()[batch["tree"]["gather"]]
    for row, kept, places in zip(batch["input_ids"], batch["attention_mask"], gathered, strict=True):
        length = int(kept.sum()) - 1
        assert places[:length].tolist() == row[:length].tolist()


def test_an_image_shared_by_rows_is_processed_and_shown_once(corpus):
    ours, _ = corpus.sft()
    seen = []

    class Counting:
        merge_size = corpus.processor.image_processor.merge_size

        def __call__(self, images, **options):
            seen.append(len(images))
            return corpus.processor.image_processor(images, **options)

    rows = [row for row in ours if row["image_paths"] == ours[0]["image_paths"]]
    tree = SftCollator(corpus.processor, Pixels(Counting()))(rows)["tree"]
    assert len(rows) > 3 and seen == [1] and tree["occurrences"] == [0]
    image = tree["input_ids"] == corpus.processor.image_token_id
    assert int(image.sum()) == math.prod(tree["image_grids"][0]) // Counting.merge_size**2


def test_both_sides_of_a_pair_share_their_prompt(corpus):
    pairs, _ = corpus.pairs()
    batch = PreferenceCollator(**corpus.collator())(
        [{**pairs[0], "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0}]
    )
    assert batch["completion_mask"].sum(1).tolist() == [
        len(pairs[0]["chosen_ids"]),
        len(pairs[0]["rejected_ids"]),
    ]
    assert (batch["ref_chosen_logps"].item(), batch["ref_rejected_logps"].item()) == (-1.0, -2.0)
    first, second = batch["tree"]["gather"][:, 0]
    assert first == second  # the last token of the prompt is one node


def test_one_sequence_holds_all_trees_in_whole_blocks(corpus):
    ours, _ = corpus.sft()
    tree = SftCollator(**corpus.collator(), one_sequence=True)(list(ours))["tree"]
    assert tree["input_ids"].shape[0] == 1 and tree["input_ids"].shape[1] % 128 == 0
    several = SftCollator(**corpus.collator())(list(ours))["tree"]
    assert torch.equal(
        tree["input_ids"].flatten()[tree["gather"]], several["input_ids"].flatten()[several["gather"]]
    )
