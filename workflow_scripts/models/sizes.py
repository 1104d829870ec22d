"""How large the published models are: what `published.yaml` alone tells, without building them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, unknown

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Size:
    """A model's configurations of text and vision, and how many numbers its parts hold."""

    text: Any
    vision: Any
    numbers: Mapping[str, int]

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

    def cache_bytes(self) -> int:
        """Of the keys and values of one token, in bf16."""
        layers, heads = self.text.num_hidden_layers, self.text.num_key_value_heads
        return int(2 * 2 * layers * heads * self.head_width)

    def image_tokens(self, side: float) -> int:
        """Tokens of an image with the area of `side` squared, in pixels."""
        unit = self.vision.patch_size * self.vision.spatial_merge_size
        return int(max(1, round(side / unit)) ** 2)


@cache
def published(version: str) -> Size:
    """The size of the published checkpoint of `version`; a UserError where none is stated."""
    entry = stated(version)
    text, vision = (SimpleNamespace(**entry["config"][f"{part}_config"]) for part in ("text", "vision"))
    return Size(text, vision, entry["numbers"])


def stated(version: str) -> dict[str, Any]:
    """What `published.yaml` says of `version`; a UserError where it says nothing."""
    known = files.read_yaml(PUBLISHED)
    known.pop("sources")
    if version not in known:
        raise UserError(f"models/published.yaml: {unknown(version, known)}")
    entry: dict[str, Any] = known[version]
    return entry
