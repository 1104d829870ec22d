"""A model's weights as the hub has them, an adapter merged into its base: file by file, never the whole in memory."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.models import adapters, bases, loading

ADAPTER = "default"
# The hub has the routed experts one by one, transformers all of a layer in one tensor, gate above up.
_EXPERT = re.compile(r"(?P<experts>.*\.mlp\.experts)\.(?P<number>\d+)\.(?P<projection>\w+)_proj\.weight")


def write(path: Path, like: Path, target: Path) -> None:
    """Write the weights of the model or adapter at `path` to the folder `target`.

    Names are the hub's, types those of the whole model in `like`, files those of the source, with an index where there
    are several. A merged weight is base + scaling · B·A (Hu et al. 2021, arXiv:2106.09685), added in fp32 and rounded
    once.
    """
    source, merger = path, None
    if bases.is_adapter(path):
        source = loading.base_of(path)
        merger = Merger(path, source)
    types = _types(like)
    placed: dict[str, str] = {}
    size = 0
    for file in tqdm(weight_files(source), desc="weights", unit="file", disable=None, leave=False):
        weights = {}
        with safe_open(source / file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (no dictionary)
                name, weight = loading.renamed(key), opened.get_tensor(key)
                changed = merger.merged(name, weight) if merger else weight
                weights[name] = changed.to(types.get(name, weight.dtype)).contiguous()
        save_file(weights, target / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(weights, file)
        size += sum(weight.nbytes for weight in weights.values())
    if merger and merger.left:
        raise UserError(
            f"{path}: {len(merger.left)} of its weights have no place in {source} ({min(merger.left)}, …); fetch that again"
        )
    if len(set(placed.values())) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(placed.items()))}
        files.write_json(target / SAFE_WEIGHTS_INDEX_NAME, index)


def weight_files(folder: Path) -> list[str]:
    """The safetensors files of the whole model in `folder`; a UserError where there are none."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        return sorted(set(files.read_value(index, "weight_map").values()))
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not found:
        raise UserError(f"{folder}: no weights in safetensors files; fetch the model again")
    return found


def _types(folder: Path) -> dict[str, torch.dtype]:
    """The type of each weight in `folder`, by its name today; a UserError where one is quantised."""
    found = {}
    for file in weight_files(folder):
        with safe_open(folder / file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (no dictionary)
                kind = opened.get_slice(key).get_dtype()
                if kind not in _TORCH:
                    raise UserError(
                        f"{folder / file}: {key} is of type {kind}, which nothing can be merged into; "
                        "take the checkpoint in BF16, of the same name without -FP8"
                    )
                found[loading.renamed(key)] = getattr(torch, _TORCH[kind])
    return found


_TORCH: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Merger:
    """The weights of the whole model in `base` with the adapter at `path` in them, one by one, by peft's own layers.

    `left` are those that the adapter changes and that have not been seen.
    """

    def __init__(self, path: Path, base: Path) -> None:
        adapted: Any = loading.adapted(_skeleton(base), base, path)
        self._path = path
        self._layers: dict[str, LoraLayer | TrainableTokensLayer] = {}
        self._replaced: dict[str, torch.Tensor] = {}
        for place, module in adapted.get_base_model().named_modules():
            name = _in_base(place)
            if isinstance(module, LoraLayer):
                if module.lora_bias.get(ADAPTER):
                    raise UserError(
                        f"{path}: {name}: an adapter with lora_bias cannot be merged into its base"
                    )
                parameter = module.parameter_name if isinstance(module, ParamWrapper) else "weight"
                self._layers[f"{name}.{parameter}"] = module
            elif isinstance(module, TrainableTokensLayer):
                self._layers[f"{name}.weight"] = module
            elif isinstance(module, ModulesToSaveWrapper):
                for key, value in module.modules_to_save[ADAPTER].named_parameters():
                    self._replaced[f"{name}.{key}"] = value.data
        saved = {_in_base(loading.renamed(key.removeprefix(_PEFTS))) for key in adapters.keys(path)}
        for place, value in adapted.get_base_model().named_parameters():
            if place.endswith(".bias") and (name := _in_base(place)) in saved:  # trained with the adapter
                self._replaced[name] = value.data
        self.left = {*self._layers, *self._replaced}
        # Files have a layer's experts one after the other, each with a weight of either fused one.
        self._of_experts = lru_cache(2)(self._delta)

    def merged(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """`weight`, which the base has as `name`, with what the adapter adds; in fp32 where it adds anything."""
        self.left.discard(name)
        if name in self._replaced:
            return self._replaced[name]
        if layer := self._layers.get(name):
            return self._whole(layer, name, weight)
        if (expert := _EXPERT.fullmatch(name)) and (
            stacked := f"{expert['experts']}.{_STACKED[expert['projection']]}"
        ) in self._layers:
            self.left.discard(stacked)
            delta = self._of_experts(stacked)[int(expert["number"])]  # [out, in]
            if expert["projection"] != "down":
                delta = delta.chunk(2)[("gate", "up").index(expert["projection"])]
            return weight.float() + delta
        return weight

    def _whole(self, layer: Any, name: str, weight: torch.Tensor) -> torch.Tensor:
        holder, parameter = layer.get_base_layer(), name.rpartition(".")[2]
        placeholder = getattr(holder, parameter)
        setattr(holder, parameter, torch.nn.Parameter(weight.float(), requires_grad=False))
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise UserError(f"{self._path}: {name}: {error}") from error
        found: torch.Tensor = getattr(holder, parameter).data
        setattr(holder, parameter, placeholder)
        return found

    def _delta(self, stacked: str) -> torch.Tensor:
        """What the adapter adds to the routed experts of a layer, [experts, out, in]."""
        layer: Any = self._layers[stacked]
        delta: torch.Tensor = layer.get_delta_weight(ADAPTER)
        return delta


def _in_base(name: str) -> str:
    """What the base calls the module or weight `name` of itself within an adapter."""
    return re.sub(r"\.(?:base_layer|token_adapter)\b", "", name)


_PEFTS = "base_model.model."  # before the names of a saved adapter
_STACKED = {"gate": "gate_up_proj", "up": "gate_up_proj", "down": "down_proj"}


def _skeleton(base: Path) -> PreTrainedModel:
    """The model in `base` without its weights: a zero stands for each, in the weight's shape."""
    with torch.device("meta"):
        skeleton: PreTrainedModel = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(base), dtype=torch.float32
        )
    for module in skeleton.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # On the CPU, where peft then puts the adapter's weights too; biases for the adapter's own to be put there.
            zeros = torch.zeros(parameter.shape if name == "bias" else ()).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(zeros, requires_grad=False))
    return skeleton
