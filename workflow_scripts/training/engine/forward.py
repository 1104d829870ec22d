"""One forward per image: the language model runs once over the tree of a batch's rows.

The backbone keeps its own forward. A hook before it puts the tree in the place of the rows, a hook after it gathers
the hidden states back to the rows' tails. TRL's trainers, losses and metrics see what they always saw.
"""

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from workflow_scripts.training.engine.attention import attention_mask


def share_prefixes(backbone: torch.nn.Module) -> None:
    """Let `backbone` (Glm4vModel, Glm4vMoeModel) take batches that carry a "tree", from `collators.Collator`.

    The tree's entries: input_ids, ends [sequences, length] and position_ids [3, sequences, length]; gather [rows,
    tail length], places in the flattened sequences; pixel_values with image_grid_thw, or image_features
    [image tokens, hidden size], of the distinct images (without a grid there are none, and the tower rests);
    occurrences, which image each run of image tokens shows.
    Batches without a tree, as in generation, pass unchanged. A second call changes nothing.
    """
    if getattr(backbone, "shares_prefixes", False):
        return
    backbone.shares_prefixes = True
    entered: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def before(module, args, kwargs):
        if "tree" not in kwargs:
            return None
        kwargs = {
            name: value for name, value in kwargs.items() if name not in ("input_ids", "attention_mask")
        }
        tree = kwargs.pop("tree")
        inputs, nothing = _embedded(module, tree)
        entered.append((tree["gather"], nothing))
        mask = attention_mask(tree["ends"], module.language_model.config._attn_implementation)
        return args, {
            **kwargs,
            **inputs,
            "position_ids": tree["position_ids"],
            "attention_mask": mask,
        }

    def after(module, args, kwargs, output):
        if entered:
            gather, nothing = entered.pop()
            hidden = output.last_hidden_state.flatten(0, 1)
            hidden = hidden if nothing is None else hidden + nothing
            output.last_hidden_state = hidden[gather.flatten()].unflatten(0, gather.shape)
        return output

    backbone.register_forward_pre_hook(before, with_kwargs=True)
    backbone.register_forward_hook(after, with_kwargs=True)


def _embedded(module, tree: dict) -> tuple[dict, torch.Tensor | None]:
    """The tree's tokens and images as inputs of the backbone; a zero to be added to its hidden states, or None."""
    vision = module.visual
    trains = any(parameter.requires_grad for parameter in vision.parameters())
    if "image_features" in tree and "image_grid_thw" not in tree:
        return {"input_ids": tree["input_ids"]}, None
    if "image_features" in tree:
        grids = tree["image_grid_thw"]
        sizes = (grids.prod(-1) // vision.spatial_merge_size**2).tolist()
        features = torch.split(tree["image_features"], sizes)
    elif "pixel_values" in tree:
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            features = module.get_image_features(tree["pixel_values"], tree["image_grid_thw"]).pooler_output
    elif trains or _is_sharded(vision):
        return {"input_ids": tree["input_ids"]}, _idle_tower(module, tree["input_ids"].device)
    else:
        return {"input_ids": tree["input_ids"]}, None
    shown = [features[number] for number in tree["occurrences"].tolist()]
    return {
        "input_ids": tree["input_ids"],
        "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=shown)},
    }, None


def _idle_tower(module, device: torch.device) -> torch.Tensor:
    """A zero that the vision tower has computed, for a batch without images.

    Other ranks may have images, and wait for the tower's parameters or gradients: its modules must run here too, in
    the same order, before the backbone's own.
    """
    config = module.visual.config
    side = config.spatial_merge_size
    grid = torch.tensor([[1, side, side]], device=device)
    values = config.in_channels * config.temporal_patch_size * config.patch_size**2
    patches = torch.zeros(side**2, values, device=device)
    return 0 * torch.cat(list(module.get_image_features(patches, grid).pooler_output)).sum()


def _is_sharded(module: torch.nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 or FSDP holds a part of the parameters only."""
    return any(
        hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") for parameter in module.parameters()
    )
