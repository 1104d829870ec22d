"""Whether what the runs will write fits on the disks that it goes to, by the sizes of the published models."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.settings import Config, Training
from workflow_scripts.models.sizes import Size
from workflow_scripts.stages.preflight_check import Check, State
from workflow_scripts.training.activations import BF16_BYTES, FP32_BYTES
from workflow_scripts.training.checkpoints import KEPT
from workflow_scripts.training.division import STRATEGIES
from workflow_scripts.training.estimation.requests import BOUND, Demand

GB = 1e9
REST = 2 * GB  # records, answers, logs, pages
WITH_VISION = 1.25  # an adapter of the vision tower too, to one of the text layers, at most


def checks(settings: Config, layout: Layout, at_once: int | None) -> Iterator[Check]:
    """The space on the disk of the results and on that of the hub's cache; `at_once` are the runs that train, None: all."""
    root, cache = layout.root, _existing(hub_cache())
    weights = {"weights to fetch": _to_fetch(settings, layout)}
    models, largest = _of_trainings(settings, layout)
    results = {"trained models": models, "checkpoints": sum(largest[:at_once]), "all else": REST}
    if root.stat().st_dev == cache.stat().st_dev:
        results = {**weights, **results}
    elif any(weights.values()):
        yield _check(cache, weights, 0.0, "let HF_HOME name a folder on a larger disk")
    # The cluster may let fewer train at a time; one must.
    yield _check(root, results, sum(largest[1:at_once]), "let `results` lie on a larger disk")


def _check(place: Path, parts: dict[str, float], perhaps: float, remedy: str) -> Check:
    """Of `parts` so many bytes are needed `perhaps`."""
    free, needed = shutil.disk_usage(place).free, sum(parts.values())
    shown = ", ".join(f"{name} {size / GB:.0f}" for name, size in parts.items() if size >= GB / 2)
    text = f"{place}: {free / GB:.0f} GB free, {needed / GB:.0f} GB needed: {shown}"
    state: State = "ok" if free >= needed else "warn" if free >= needed - perhaps else "fail"
    return Check("disk space", state, text, f"free some, let fewer train at a time (jobs), or {remedy}")


def hub_cache() -> Path:
    """Where fetched models come to lie."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def cached(repository: str) -> Path:
    """The folder of a model in the hub's cache."""
    return hub_cache() / f"models--{repository.replace('/', '--')}"


def _existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _to_fetch(settings: Config, layout: Layout) -> float:
    """The bytes of models that are still to come from the hub; one repository may be that of two modes."""
    found = {}
    for version, mode in dict.fromkeys((run.model_version, run.mode) for run in runs.chosen(settings)):
        checkpoint = settings.checkpoint(version, mode)
        fetched = (layout.model(version, mode) / MANIFEST).is_file()
        if fetched or checkpoint.embedded or checkpoint.path or not checkpoint.repository:
            continue
        whole = Demand(settings, layout, Run("", version, mode), BOUND).size.total * BF16_BYTES
        found[checkpoint.repository] = max(0.0, whole - _there(cached(checkpoint.repository)))
    return sum(found.values())


def _of_trainings(settings: Config, layout: Layout) -> tuple[float, list[float]]:
    """The bytes of the models that are still to be trained, and of each run's checkpoints, the largest first."""
    models, passing = 0.0, []
    for run in runs.chosen(settings):
        demand = Demand(settings, layout, run, BOUND)
        largest = 0.0
        for stage, section in (("sft", demand.own.sft), ("dpo", demand.own.dpo)):
            if layout.metrics(stage, run).is_file():
                continue
            model, checkpoint = written(demand.size, section)
            models += model
            # The next one is whole before the oldest goes.
            largest = max(largest, (KEPT + 1) * checkpoint - _there(layout.checkpoints(stage, run)))
        passing.append(largest)
    return models, sorted(passing, reverse=True)


def written(size: Size, settings: Training) -> tuple[float, float]:
    """Bytes of a trained model, and of a checkpoint with AdamW's two moments.

    DeepSpeed trains in bf16 and keeps what trains in fp32 too; elsewhere it is fp32 alone.
    """
    if not size.total:
        return 0.0, 0.0
    saved: float
    trained: float
    if settings.method == "full":
        frozen = 0 if settings.trains_vision else size.numbers["vision tower"] + size.numbers["merger"]
        saved, trained = size.total, size.total - frozen
    else:
        saved = trained = adapter(size, settings.lora.rank) * (WITH_VISION if settings.lora.vision else 1)
    deepspeed = STRATEGIES[settings.strategy].library == "deepspeed"
    model = saved * (BF16_BYTES if deepspeed else FP32_BYTES)
    return model, model + trained * FP32_BYTES * (3 if deepspeed else 2)


def adapter(size: Size, rank: int) -> int:
    """Numbers of a LoRA adapter of the text layers, as `shapes.Shape.adapter`, which builds the model to count them."""
    text, hidden = size.text, size.text.hidden_size
    heads, pairs = (size.head_width * count for count in (text.num_attention_heads, text.num_key_value_heads))
    layers, attention = text.num_hidden_layers, 2 * (hidden + heads) + 2 * (hidden + pairs)
    if not size.is_moe:  # gate and up are one module
        return int(rank * layers * (attention + 2 * hidden + 3 * text.intermediate_size))
    dense, shared = text.first_k_dense_replace, text.moe_intermediate_size * text.n_shared_experts
    mlps = dense * (hidden + text.intermediate_size) + (layers - dense) * (hidden + shared)
    return int(rank * (layers * attention + 3 * mlps))


def _there(folder: Path) -> float:
    """Bytes of the files below `folder`, while a job may remove some."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return float(total)
