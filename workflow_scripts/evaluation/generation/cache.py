"""Sequences that a model has run, in transformers' own cache, and what can be done with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from workflow_scripts.models.loading import backbone

if TYPE_CHECKING:
    from workflow_scripts.models.loading import Model

AHEAD = 32  # columns that a layer sets aside for tokens to come


class GrowingLayer(DynamicLayer):
    """A layer that writes new tokens into columns set aside for them; DynamicLayer copies all that it holds each time.

    It takes keys and values [rows, heads, columns, head size] whose first `held` columns are filled, and shows these.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, held: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.whole = (keys, values)
        self._show(held)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the states [rows, heads, tokens, head size] of new tokens; returns all keys and values."""
        held, new = self.get_seq_length(), key_states.shape[-2]
        missing = held + new - self.whole[0].shape[-2]
        if missing > 0:
            keys, values = (pad(states, (0, 0, 0, missing + AHEAD)) for states in self.whole)
            self.whole = (keys, values)
        for columns, states in zip(self.whole, (key_states, value_states), strict=True):
            columns[:, :, held : held + new] = states
        self._show(held + new)
        return self.shown

    def _show(self, held: int) -> None:
        keys, values = (states[:, :, :held] for states in self.whole)
        self.shown = self.keys, self.values = keys, values


@dataclass
class Batch:
    """Rows of tokens that the model has run, all ending in the last column.

    `cache` holds keys and values [rows, heads, columns, head size] in GrowingLayers; `mask` [rows, columns] is true where a
    token stands and false in padding; `positions` [rows] is the rotary position of each row's next token, which an image
    makes smaller than its column; `logits` [rows, vocabulary] are that token's; `empty` counts for each row the
    columns before its first token.
    """

    cache: DynamicCache
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    empty: list[int]

    def __len__(self) -> int:
        return len(self.empty)

    @property
    def columns(self) -> int:
        return self.mask.shape[1]

    @property
    def layers(self) -> list[GrowingLayer]:
        found: Any = self.cache.layers
        return list(found)

    @torch.inference_mode()
    def write(self, model: "Model", tokens: Sequence[int]) -> None:
        """Run one more token of each row."""
        ids = torch.tensor(tokens, device=self.mask.device)[:, None]
        self.mask = pad(self.mask, (0, 1), value=True)
        # Two axes more, or transformers would look whether any is false, and wait for a GPU to tell.
        mask = self.mask[:, None, None]
        self.logits = run(model, self.cache, ids, mask, self.positions[:, None])[:, -1]
        self.positions = self.positions + 1

    @torch.inference_mode()
    def rows(self, indices: Sequence[int]) -> "Batch":
        """A batch of copies of these rows, in this order; one may stand there several times."""
        first = min(self.empty[index] for index in indices)
        chosen = torch.tensor(indices)
        here = chosen.to(self.mask.device)
        return Batch(
            cache_of(
                (
                    [states[chosen.to(states.device), :, first:] for states in layer.whole]
                    for layer in self.layers
                ),
                self.columns - first,
            ),
            self.mask[here, first:],
            self.positions[here],
            self.logits[here],
            [self.empty[index] - first for index in indices],
        )


def cache_of(layers: Iterable[Sequence[torch.Tensor]], held: int) -> DynamicCache:
    """A cache of the keys and values of each layer, of whose columns the first `held` are filled."""
    cache = DynamicCache()
    cache.layers = [GrowingLayer(keys, values, held) for keys, values in layers]
    return cache


def run(
    model: "Model",
    cache: DynamicCache,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    keep: int | torch.Tensor = 1,
) -> torch.Tensor:
    """The logits of text after what `cache` holds, which then holds the text too.

    `ids` and the rotary `positions` are [rows, tokens]; `mask` [rows, 1, tokens, columns] says what each token sees;
    `keep` is transformers' `logits_to_keep`.
    """
    asked: Any = model
    output = asked(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions.expand(3, -1, -1),  # time, height and width are the same for text
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    logits: torch.Tensor = output.logits
    return logits


@torch.inference_mode()
def prefill(model: "Model", inputs: dict[str, torch.Tensor]) -> Batch:
    """Run prompts, as `models.pixels.batch` gives them, with their images."""
    mask = inputs["attention_mask"]
    # `lag` [rows, 1]: how much less than their number the positions of the tokens take up.
    text: Any = backbone(model)  # its annotations name classes of tensors that no function makes
    positions, lag = text.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], inputs.get("image_grid_thw"), attention_mask=mask
    )
    asked: Any = model
    output = asked(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
        position_ids=positions.to(model.device),
        past_key_values=DynamicCache(),
        use_cache=True,
        logits_to_keep=1,
    )
    lengths = mask.sum(-1)
    return Batch(
        cache_of(((layer.keys, layer.values) for layer in output.past_key_values.layers), mask.shape[1]),
        mask.bool().to(model.device),
        (lengths + lag[:, 0]).to(model.device),
        output.logits[:, -1],
        (mask.shape[1] - lengths).tolist(),
    )


@torch.inference_mode()
def joined(left: Batch, right: Batch) -> Batch:
    """The rows of both, the shorter ones padded on the left."""
    columns = max(left.columns, right.columns)
    both = [(batch, columns - batch.columns) for batch in (left, right)]

    def stacked(*kinds: torch.Tensor) -> torch.Tensor:
        pairs = zip(kinds, both, strict=True)
        return torch.cat([pad(states, (0, 0, missing, AHEAD)) for states, (_, missing) in pairs])

    return Batch(
        cache_of(
            (
                [stacked(*pair) for pair in zip(one.shown, other.shown, strict=True)]
                for one, other in zip(left.layers, right.layers, strict=True)
            ),
            columns,
        ),
        torch.cat([pad(batch.mask, (missing, 0)) for batch, missing in both]),
        torch.cat([left.positions, right.positions]),
        torch.cat([left.logits, right.logits]),
        [empty + missing for batch, missing in both for empty in batch.empty],
    )
