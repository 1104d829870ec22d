"""Features of images by transformers' tower, without asking the GPU how large the images are."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from transformers.vision_utils import get_vision_position_ids


def image_features(
    backbone: Any, patches: torch.Tensor, grids: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, ...]:
    """The features [tokens, hidden size] of each image, as the backbone's own `get_image_features` has them.

    `patches` [patches of all images, values of a patch] lie where the tower does; `grids` are those of each image: frames,
    height and width in patches. That of transformers 5.23 reads them from the GPU, and thrice in each block.
    """
    tower = backbone.visual
    device, merge = patches.device, tower.spatial_merge_size
    known = torch.tensor(grids)
    frames = (height * width for count, height, width in grids for _ in range(count))  # patches of each
    ends = list(accumulate(frames, initial=0))
    # Blocks cut by the ends, on the host; the embeddings alone compute with them.
    with tower.embeddings.register_forward_pre_hook(
        lambda _, given: (given[0], given[1].to(device, non_blocking=True), *given[2:])
    ):
        output = tower(
            patches.type(tower.dtype),
            grid_thw=known.to(device, non_blocking=True),
            position_ids=get_vision_position_ids(known, merge).to(device, non_blocking=True),
            cu_seqlens=torch.tensor(ends, dtype=torch.int32),
        )
    tokens = [count * height * width // merge**2 for count, height, width in grids]
    return torch.split(output.pooler_output, tokens)
