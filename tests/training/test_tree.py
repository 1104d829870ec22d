"""A tree holds each shared prefix once, and every row sees in it what it saw alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.engine import tree
from workflow_scripts.training.engine.attention import FLEX_BLOCK, attention_mask

rows = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=6)


def path(keys: list[int], tail: int = 0) -> tree.Path:
    array = np.array(keys)
    return tree.Path(array + 100, array, np.arange(len(keys))[None].repeat(3, 0), tail)


@given(rows)
def test_every_row_stands_in_the_tree_once(lists):
    made = tree.grow([path(keys) for keys in lists])
    prefixes = {tuple(keys[: end + 1]) for keys in lists for end in range(len(keys))}
    assert len(made) == len(prefixes)
    for keys, places in zip(lists, made.places, strict=True):
        assert made.keys[places].tolist() == keys
        assert made.ids[places].tolist() == [key + 100 for key in keys]
        assert made.positions[:, places].tolist() == [list(range(len(keys)))] * 3


@given(rows)
def test_a_token_sees_what_came_before_it_in_its_row_and_nothing_else(lists):
    made = tree.grow([path(keys) for keys in lists])
    sees = attention_mask(torch.from_numpy(made.ends)[None], "sdpa")[0, 0]
    for places in made.places:
        for depth, place in enumerate(places):
            assert sees[place].nonzero().flatten().tolist() == places[: depth + 1].tolist()


long_rows = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 150)), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(long_rows, st.integers(0, 1))
@settings(max_examples=25)
def test_flex_attention_is_told_the_same(lists, padding):
    """Keys in runs, so that trees have long paths: blocks that no token sees, that some do and that all do."""
    made = tree.grow([path([key for key, count in runs for _ in range(count)]) for runs in lists])
    length = -(-len(made) // FLEX_BLOCK + -padding) * FLEX_BLOCK
    ends = torch.arange(1, length + 1)
    ends[: len(made)] = torch.from_numpy(made.ends)
    sees = attention_mask(ends[None], "sdpa")[:, 0]
    told = attention_mask(ends[None], "flex_attention")
    places = torch.arange(length)
    assert torch.equal(told.mask_mod(0, 0, places[:, None], places[None]), sees[0])
    expected = create_block_mask(
        lambda batch, head, query, key: sees[batch, query, key], 1, None, length, length, device="cpu"
    )
    for kind in ("", "full_"):
        counts, blocks = (getattr(told, f"{kind}kv_{name}") for name in ("num_blocks", "indices"))
        assert torch.equal(counts, getattr(expected, f"{kind}kv_num_blocks"))
        for query, count in enumerate(counts[0, 0].tolist()):
            chosen = getattr(expected, f"{kind}kv_indices")[0, 0, query, :count]
            assert torch.equal(blocks[0, 0, query, :count], chosen)


def test_only_the_tail_is_gathered():
    made = tree.grow([path([1, 2, 3], tail=2), path([1, 2, 4, 5], tail=1)])
    assert [made.keys[places].tolist() for places in made.places] == [[3], [2, 4, 5]]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(0, 40))
def test_packing_loses_nothing_and_overfills_nothing(lengths, more):
    capacity = max(lengths) + more
    bins = tree.pack(lengths, capacity)
    assert sorted(index for one in bins for index in one) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in one) <= capacity for one in bins)


@pytest.mark.parametrize("version", ["4.1v", "4.5v"])
@pytest.mark.parametrize("grids", [[], [(1, 4, 6)], [(1, 4, 4), (1, 2, 8)]])
def test_positions_are_those_of_the_model(version, grids):
    model = standins.untrained_model(VERSIONS[version]).model
    image = model.config.image_token_id
    ids = [5, 6]
    for frames, height, width in grids:
        ids += [image] * (frames * height * width // 4) + [7, 8, 9]
    expected, _ = model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(token == image) for token in ids]]),
        image_grid_thw=torch.tensor(grids) if grids else None,
    )
    assert tree.rope_positions(np.array(ids), image, grids, merge=2).tolist() == expected[:, 0].tolist()
