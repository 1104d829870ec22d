"""One forward per image: the language model runs once over the tree of a batch's rows.

The backbone's forward is wrapped: the tree takes the place of the rows, and the hidden states are gathered back to
the rows' tails. TRL's trainers, losses and metrics see what they always saw.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any, TypeAlias

import torch
from transformers import Glm4vModel, Glm4vMoeModel

from workflow_scripts.training.engine.attention import attention_mask
from workflow_scripts.training.engine.sharding import divided
from workflow_scripts.training.engine.vision import image_features

Backbone: TypeAlias = Glm4vModel | Glm4vMoeModel


def share_prefixes(backbone: Backbone) -> None:
    """Let `backbone` (Glm4vModel, Glm4vMoeModel) take batches that carry a "tree", from `collation.collate`.

    The tree's entries: input_ids, ends [sequences, length] and position_ids [3, sequences, length]; gather [rows,
    tail length], places in the flattened sequences; pixel_values with image_grids, (frames, height, width) in patches, or
    image_features [image tokens, hidden size], of the distinct images (without grids there are none, and the tower rests);
    image_sizes, how many tokens each of them takes, and occurrences, which image each run of image tokens shows: lists,
    for to read a tensor would wait for the GPU. Other entries, as a trainer's own notes, are left alone.
    Batches without a tree, as in generation, pass unchanged. A second call changes nothing.
    """
    # A method of this very module, also after a deepcopy.
    backbone.forward = MethodType(_forward, backbone)


def _forward(backbone: Backbone, *args: Any, tree: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """The forward of the backbone's class, over the tokens of `tree` where there is one."""
    forward = type(backbone).forward
    if tree is None:
        return forward(backbone, *args, **kwargs)
    features, idle = _images(backbone, tree)
    mask = attention_mask(tree["ends"], backbone.language_model.config._attn_implementation)
    of_rows = {name: kwargs[name] for name in kwargs if name not in ("input_ids", "attention_mask")}
    of_tree = {
        "inputs_embeds": _embedded(backbone, tree, features),
        "position_ids": tree["position_ids"],
        "attention_mask": mask,
    }
    output = forward(backbone, *args, **of_rows | of_tree)
    hidden = output.last_hidden_state.flatten(0, 1)  # [sequences * length, hidden size]
    hidden = hidden if idle is None else hidden + idle
    output.last_hidden_state = gathered(hidden, tree["gather"])
    return output


def gathered(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The `hidden` states [tokens, hidden size] at `places` [rows, tail length]: [rows, tail length, hidden size].

    Rows share places. An embedding's backward sums their gradients in the order of the rows; that of indexing on a
    CPU in the order in which threads come, which differs from run to run.
    """
    return torch.nn.functional.embedding(places, hidden)


def _embedded(
    backbone: Backbone, tree: dict[str, Any], features: Sequence[torch.Tensor] | None
) -> torch.Tensor:
    """The tree's tokens [sequences, length, hidden size], those of images by the `features` of each.

    As transformers' forward does, which counts the images' tokens on the GPU first, and waits for the count; here the
    host knows it.
    """
    ids = tree["input_ids"]
    embedded: torch.Tensor = backbone.get_input_embeddings()(ids)
    if features is None:
        return embedded
    shown = torch.cat(
        [features[number] for number in tree["occurrences"]]
    )  # [image tokens of the tree, hidden size]
    places = (ids == backbone.config.image_token_id)[..., None]
    return embedded.masked_scatter(places, shown.to(embedded.device, embedded.dtype))


def _images(
    backbone: Backbone, tree: dict[str, Any]
) -> tuple[Sequence[torch.Tensor] | None, torch.Tensor | None]:
    """The features of each of the tree's images; a zero to be added to the hidden states. Either may be None."""
    vision = backbone.visual
    trains = any(parameter.requires_grad for parameter in vision.parameters())
    if "image_features" in tree:
        shown = "image_grids" in tree
        return (torch.split(tree["image_features"], tree["image_sizes"]) if shown else None), None
    if "pixel_values" in tree:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return image_features(backbone, tree["pixel_values"], tree["image_grids"]), None
    if trains or divided(vision):
        return None, _idle_tower(backbone, tree["input_ids"].device)
    return None, None


def _idle_tower(backbone: Backbone, device: torch.device) -> torch.Tensor:
    """A zero, a tensor [], that the vision tower has computed, for a batch without images.

    Other ranks may have images, and wait for the tower's parameters or gradients: its modules must run here too, in
    the same order.
    """
    config = backbone.visual.config
    side = config.spatial_merge_size
    values = config.in_channels * config.temporal_patch_size * config.patch_size**2
    patches = torch.zeros(side**2, values, device=device)
    return 0 * torch.cat(image_features(backbone, patches, [[1, side, side]])).sum()
