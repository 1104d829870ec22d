"""Whatever is done with rows that have run, the next token's logits are those of the whole row run anew."""

import pytest
import torch

from workflow_scripts.evaluation.generation.branches import Branch, branched
from workflow_scripts.evaluation.generation.cache import AHEAD, joined, prefill
from workflow_scripts.evaluation.generation.prompts import groups
from workflow_scripts.models.pixels import Pixels, batch


class Rows:
    """The groups of the records that have several questions, their prefixes run together."""

    def __init__(self, asked) -> None:
        self.asked, self.processor = asked, asked.dialogue.processor
        generator = asked.generator()
        prompts = [
            generator._prompt(index, record, asked.folder) for index, record in enumerate(asked.records)
        ]
        found = groups(prompts, self.processor.image_token_id)
        self.groups = [group for group in found if not group.alone]
        self.prefixes = self.run([(group.prefix, group.images) for group in self.groups])
        self.branches = [
            (Branch(row, prompt.ids[len(group.prefix) :]), prompt)
            for row, group in enumerate(self.groups)
            for prompt in group.prompts
        ]

    def run(self, rows):
        return prefill(self.asked.model, batch(rows, self.processor, Pixels(self.processor.image_processor)))

    def expected(self, prompt, *more: int) -> torch.Tensor:
        return self.run([([*prompt.ids, *more], list(prompt.images))]).logits[0]


@pytest.fixture
def rows(asked):
    return Rows(asked)


def test_branches_are_rows_and_copies_are_alike(rows):
    branches = [branch for branch, _ in rows.branches]
    assert len(rows.groups) == 4 and len(branches) == 12
    found = branched(rows.prefixes, branches, rows.asked.model, copies=2)
    expected = torch.stack([rows.expected(prompt) for _, prompt in rows.branches])
    torch.testing.assert_close(found.logits, expected.repeat_interleave(2, dim=0), atol=2e-4, rtol=1e-3)


def test_rows_are_chosen_joined_and_gone_on_from(rows):
    model = rows.asked.model
    long, short = rows.branches[-2:], rows.branches[:3]
    left, right = (branched(rows.prefixes, [branch for branch, _ in part], model) for part in (short, long))
    left.write(model, [5, 6, 7])
    both = joined(left, right).rows([4, 1, 0, 1])
    assert min(both.empty) == 0  # no column that is padding in all rows
    for _ in range(AHEAD + 2):  # more than is set aside
        both.write(model, [11, 12, 13, 12])
    prompts = [prompt for _, prompt in (*short, *long)]
    more = [12] * (AHEAD + 2)
    expected = [
        rows.expected(prompts[4], *[11] * len(more)),
        rows.expected(prompts[1], 6, *more),
        rows.expected(prompts[0], 5, *[13] * len(more)),
        rows.expected(prompts[1], 6, *more),
    ]
    torch.testing.assert_close(both.logits, torch.stack(expected), atol=2e-4, rtol=1e-3)


def test_prefixes_stay_as_they_are(rows):
    before = rows.prefixes.cache.layers[0].keys.clone(), rows.prefixes.columns
    branched(rows.prefixes, [branch for branch, _ in rows.branches[:2]], rows.asked.model)
    assert torch.equal(rows.prefixes.cache.layers[0].keys, before[0]) and rows.prefixes.columns == before[1]
