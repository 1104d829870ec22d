"""What several keys of another trainer mean together: the stage, the batch, the model, the data, and what is frozen."""

import re
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.configuration.foreign.meanings import Ours
from workflow_scripts.configuration.foreign.trainers import LLAMA_FACTORY
from workflow_scripts.datasets.readers import dataset_info
from workflow_scripts.models.catalogue import VERSIONS

# Names that hubs give the checkpoints of the catalogue, by their last part.
_CHECKPOINTS = {
    repository.split("/")[1].lower(): (version, mode)
    for version, row in VERSIONS.items()
    for mode, repository in reversed(row.repositories.items())
}
FROZEN = "it is frozen here too"
ROWS_A_STEP = 16  # where ms-swift's file does not say how often gradients are summed


class Meaning(NamedTuple):
    """What some keys mean here; without `ours`, `why` says why nothing."""

    keys: tuple[str, ...]
    ours: Ours
    why: str = ""


Values = Mapping[str, Any]


def stage(trainer: str, values: Values) -> str:
    """sft or dpo; a UserError for any other."""
    name = "stage" if trainer == LLAMA_FACTORY.name else "rlhf_type"
    found = values.get(name, "sft")
    if found not in ("sft", "dpo"):
        raise UserError(f"{name}: {shown(found)}: this project trains by sft and by dpo")
    return str(found)


def validates(trainer: str, values: Values) -> bool:
    """Whether a training is validated as it runs."""
    if trainer == LLAMA_FACTORY.name:
        return values.get("eval_strategy") not in (None, False, "no")
    return bool(values.get("val_dataset") or values.get("split_dataset_ratio"))


def batch(values: Values, gpus: int) -> Meaning:
    """Rows of an optimiser step, over all GPUs."""
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    rows = int(values[keys[0]])
    summed = values.get(keys[1]) or max(1, ceil(ROWS_A_STEP / rows / gpus))
    return Meaning(keys, {"{stage}.batch_size": rows * int(summed) * gpus, "{stage}.gpus": gpus})


def model(values: Values) -> Iterator[Meaning]:
    """The checkpoint by the catalogue, on the hub or on this machine; adapters to begin from are named by a flag."""
    name = "model_name_or_path" if "model_name_or_path" in values else "model"
    given = str(values.get(name) or "")
    known = _CHECKPOINTS.get(Path(given).name.lower())
    if known is None:
        yield Meaning(
            (name,), {}, "no GLM-4.1V or GLM-4.5V by its name; give models.{version}.{mode}.path yourself"
        )
    else:
        version, mode = known
        if values.get("enable_thinking") is False and VERSIONS[version].hybrid:
            mode = "base"
        local = Path(given).is_absolute() or given.startswith(".") or Path(given).is_dir()
        place = {"path": given} if local else {"repository": VERSIONS[version].repositories[mode]}
        if values.get("model_revision") and not local:
            place["revision"] = str(values["model_revision"])
        ours: Ours = {f"models|{version}|{mode}": place, "run": {"model_version": version, "mode": mode}}
        yield Meaning((name, "model_revision"), ours)
    for key in ("adapter_name_or_path", "adapters"):
        if values.get(key):
            yield Meaning((key,), {}, "give it to a command as --base_model")


def frozen(values: Values, method: str) -> Meaning:
    """What of the vision part is trained; there the merger goes with the tower."""
    names = ("freeze_vision_tower", "freeze_multi_modal_projector")
    tower, merger = names if any(name in values for name in names) else ("freeze_vit", "freeze_aligner")
    if values.get(tower, True) != values.get(merger, True):
        return Meaning((tower, merger), {}, "the merger is trained with the vision tower, or neither is")
    trained = not values.get(tower, True)
    if not trained:
        return Meaning((tower, merger), {}, FROZEN)
    ours: Ours = {"{stage}.lora.vision": True} if method == "lora" else {"{stage}.freeze_vision": False}
    return Meaning((tower, merger), ours)


def data(values: Values, folder: Path, stage: str) -> Iterator[Meaning]:
    """The sets, by LLaMA-Factory's names in dataset_info.json or ms-swift's paths; `folder` has the file."""
    stated = values.get("dataset") or []
    given = [item.strip() for item in stated.split(",")] if isinstance(stated, str) else list(stated)
    directory = folder / str(values.get("dataset_dir", "data"))
    images = values.get("media_dir")
    named = files.read_object(path) if (path := directory / dataset_info.NAME).is_file() else {}
    tables = {item: table for item in given if (table := _table(item, named, directory, folder))}
    keys = ("dataset", "dataset_dir", "media_dir", "interleave_probs", "interleave_prob", "mix_strategy")
    if lost := [item for item in given if item not in tables]:
        where = f"neither in {directory / dataset_info.NAME} nor a file; write datasets: {{name: {{reader: custom, path: …}}}}"
        yield Meaning(("dataset",), {}, f"{', '.join(lost)}: {where}")
    if stage == "dpo":
        pairs = ", ".join(map(str, tables.values())) or "FILE"
        yield Meaning(
            keys, {}, f"pairs belong to a set, sft comes first: preferences: {{files: {{slake: [{pairs}]}}}}"
        )
    elif tables:
        beside = {"images": str(folder / images)} if images else {}
        sets = {
            _name(item): {"reader": "custom", "path": str(table), **beside} for item, table in tables.items()
        }
        yield Meaning(
            keys, {f"datasets|{name}": entry for name, entry in sets.items()} | _combined(values, list(sets))
        )


def _combined(values: Values, names: list[str]) -> Ours:
    """Several sets as a combination, mixed by the probabilities that are given."""
    if len(names) == 1:
        return {"run": {"dataset": names[0]}}
    probabilities = values.get("interleave_probs") or values.get("interleave_prob")
    shares = probabilities.split(",") if isinstance(probabilities, str) else probabilities
    weights = {"weights": dict(zip(names, map(float, shares), strict=False))} if shares else {}
    return {"datasets|all": {"members": names, **weights}, "run": {"dataset": "all"}}


def _name(item: str) -> str:
    """A name for a set that stands in paths: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(item.partition("#")[0]).stem).strip("-.")


def _table(item: str, named: dict[str, Any], directory: Path, folder: Path) -> Path | None:
    entry = named.get(item)
    file = entry.get("file_name") if isinstance(entry, dict) else None
    if file:
        return directory / str(file)
    path = folder / item.partition("#")[0]
    return path if path.is_file() else None
