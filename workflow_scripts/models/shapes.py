"""The shapes of the published models, without their weights: `published.yaml` built on the meta device."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from workflow_scripts.models import adapters, sizes
from workflow_scripts.models.sizes import Size

PARTS = ("vision tower", "merger", "embeddings", "language layers", "routed experts", "head")


@dataclass(frozen=True)
class Shape(Size):
    """A model's size and what its modules hold, by layer and of adapter targets.

    `targets` are (in, out) of each module that LoRA adapts, by name, with the vision tower's; `largest_layer` is the
    number of parameters of the largest text layer and `linear` that of the text layers' linear modules, which QLoRA
    quantises. `unknown` names what no source states.
    """

    targets: Mapping[str, tuple[int, int]]
    largest_layer: int
    linear: int
    unknown: tuple[str, ...] = ()

    def adapter(self, rank: int, vision: bool = False) -> int:
        """Numbers of a LoRA adapter of `rank`, two matrices for each target."""
        return rank * sum(
            sum(widths) for name, widths in self.targets.items() if vision or "language_model" in name
        )


def published(version: str) -> Shape:
    """The shape of the published checkpoint of `version`; a UserError where none is stated."""
    entry = sizes.stated(version)
    return measured(AutoConfig.for_model(**entry["config"]), tuple(entry.get("unknown", ())))


def measured(config: Any, unstated: tuple[str, ...] = ()) -> Shape:
    """The shape of the model that `config` describes."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    numbers: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    layers: Counter[int] = Counter()
    for name, parameter in model.named_parameters():
        numbers[_part(name)] += parameter.numel()
        if ".layers." in name:
            layers[int(name.split(".layers.")[1].split(".")[0])] += parameter.numel()
    linear = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    return Shape(
        text=config.text_config,
        vision=config.vision_config,
        numbers=numbers,
        targets={
            name: (linear[name].in_features, linear[name].out_features)
            for name in adapters.targets(list(linear), vision=True)
        },
        largest_layer=max(layers.values()),
        linear=sum(each.weight.numel() for name, each in linear.items() if "language_model" in name),
        unknown=unstated,
    )


def _part(name: str) -> str:
    if ".visual." in name:
        return "merger" if ".visual.merger." in name else "vision tower"
    if name.startswith("lm_head"):
        return "head"
    if ".embed_tokens." in name:
        return "embeddings"
    return "routed experts" if ".mlp.experts." in name else "language layers"
