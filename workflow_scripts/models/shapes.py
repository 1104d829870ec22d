"""The shapes of the published models, without their weights: `published.yaml` built on the meta device."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, unknown
from workflow_scripts.models import adapters

PUBLISHED = Path(__file__).with_name("published.yaml")
PARTS = ("vision tower", "merger", "embeddings", "language layers", "routed experts", "head")


@dataclass(frozen=True)
class Shape:
    """A model's configurations and what its modules hold: numbers by part, by layer, and those of adapter targets.

    `targets` are (in, out) of each module that LoRA adapts, by name, with the vision tower's; `largest_layer` is the
    number of parameters of the largest text layer and `linear` that of the text layers' linear modules, which QLoRA
    quantises. `unknown` names what no source states.
    """

    text: Any
    vision: Any
    numbers: Mapping[str, int]
    targets: Mapping[str, tuple[int, int]]
    largest_layer: int
    linear: int
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.numbers.values())

    @property
    def is_moe(self) -> bool:
        return bool(self.numbers["routed experts"])

    @property
    def active(self) -> float:
        """Parameters of the text layers that compute for a token, on average; embeddings and head apart."""
        routed = self.numbers["routed experts"]
        share = self.text.num_experts_per_tok / self.text.n_routed_experts if routed else 0.0
        return self.numbers["language layers"] + share * routed

    @property
    def head_width(self) -> int:
        """Units of one attention head."""
        width: int = getattr(self.text, "head_dim", None) or (
            self.text.hidden_size // self.text.num_attention_heads
        )
        return width

    def adapter(self, rank: int, vision: bool = False) -> int:
        """Numbers of a LoRA adapter of `rank`, two matrices for each target."""
        return rank * sum(
            sum(widths) for name, widths in self.targets.items() if vision or "language_model" in name
        )

    def cache_bytes(self) -> int:
        """Of the keys and values of one token, in bf16."""
        layers, heads = self.text.num_hidden_layers, self.text.num_key_value_heads
        return int(2 * 2 * layers * heads * self.head_width)

    def image_tokens(self, side: float) -> int:
        """Tokens of an image with the area of `side` squared, in pixels."""
        unit = self.vision.patch_size * self.vision.spatial_merge_size
        return int(max(1, round(side / unit)) ** 2)


def published(version: str) -> Shape:
    """The shape of the published checkpoint of `version`; a UserError where none is stated."""
    known = files.read_yaml(PUBLISHED)
    known.pop("sources")
    if version not in known:
        raise UserError(f"models/published.yaml: {unknown(version, known)}")
    entry = known[version]
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
