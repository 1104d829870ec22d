"""What is about to be trained, in a few lines: parameters, adapters, batches, tokens and an estimate of the memory."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from tqdm import tqdm

from workflow_scripts.configuration.settings import Training
from workflow_scripts.models import loading
from workflow_scripts.training import activations, parts
from workflow_scripts.training.activations import Kept
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.model import Start

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.uint8: "4 bits"}


def lines(
    model: torch.nn.Module,
    settings: Training,
    start: Start,
    schedule: Schedule,
    processes: int,
    every: int | None,
) -> list[str]:
    """The summary of a training of `model`, aligned in two columns; one in `every` layers recomputes its activations."""
    found = [
        (
            "device",
            f"{start.device}, {NAMES[start.dtype]}, {settings.strategy}, {processes} process(es)",
        ),
        ("types", _types(model, start)),
        *[("parameters" if not number else "", text) for number, text in enumerate(_parameters(model))],
        *_adapters(model),
        ("rates", _rates(settings, start.rates)),
        *_batches(schedule, settings, processes),
        ("memory", _memory_line(memory(model, every, start, schedule, processes))),
    ]
    return [f"{name:<12}{text}" for name, text in found]


def _types(model: torch.nn.Module, start: Start) -> str:
    """In which types weights are kept and computed with.

    DeepSpeed makes those of the model 16 bits wide when training starts, and then steps on its own copies in 32.
    """
    if start.dtype == torch.float32:
        return "all weights fp32, computed in fp32"
    if start.strategy.library == "deepspeed":
        return "all weights bf16, steps on DeepSpeed's copies in fp32 of those that train, computed in bf16"
    kept: dict[bool, set[str]] = {True: set(), False: set()}
    for parameter in model.parameters():
        kept[parameter.requires_grad].add(NAMES[parameter.dtype])
    weights = [
        f"{kind} weights {' and '.join(sorted(kept[trains]))}"
        for kind, trains in (("trained", True), ("frozen", False))
        if kept[trains]
    ]
    how = "cast to bf16 by FSDP" if start.strategy.library == "fsdp" else "computed under bf16 autocast"
    return ", ".join([*weights, how])


def parameters(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """(all, trained) parameters of the language model, the merger, the vision tower, and the adapters on them."""
    total: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = "adapter" if parts.is_adapter(name) else parts.part(name)
        total[part] += parts.size(parameter)
        trained[part] += parts.size(parameter) if parameter.requires_grad else 0
    return {part: (total[part], trained[part]) for part in (*parts.PARTS, "adapter") if total[part]}


def _parameters(model: torch.nn.Module) -> list[str]:
    return [
        f"{part:<16}{total:>16,}  {f'{trained:,} trained' if trained else 'frozen'}"
        for part, (total, trained) in parameters(model).items()
    ]


def adapter_targets(model: torch.nn.Module) -> dict[str, Counter[str]]:
    """How many modules of each projection carry a trainable adapter, by part of the model."""
    found: dict[str, Counter[str]] = {part: Counter() for part in parts.PARTS}
    for name, parameter in model.named_parameters():
        if ".lora_A." in name and parameter.requires_grad:
            module = name.split(".lora_A.")[0].replace(".base_layer", "")
            found[parts.part(name)][module.rsplit(".", 1)[1]] += 1
    return {part: counts for part, counts in found.items() if counts}


def _adapters(model: torch.nn.Module) -> list[tuple[str, str]]:
    return [
        ("adapters", f"{part}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
        for part, counts in adapter_targets(model).items()
    ]


def _rates(settings: Training, rates: Mapping[str, float]) -> str:
    main, source = settings.rate
    others = "".join(f", {part} {rate:.1e}" for part, rate in rates.items())
    return f"{main:.1e} ({source}){others}"


def _batches(schedule: Schedule, settings: Training, processes: int) -> list[tuple[str, str]]:
    steps = len(schedule.loads)
    sizes = [load.rows for load in schedule.loads]
    run = sum(schedule.loads[1:], schedule.loads[0])
    forwards = steps * schedule.accumulation * processes
    return [
        ("training", f"{schedule.rows:,} rows, {settings.epochs:g} epoch(s), {steps:,} steps"),
        (
            "batch",
            f"{run.rows / steps:.1f} rows a step ({min(sizes)} to {max(sizes)}) "
            f"of {sum(schedule.images) / steps:.1f} images, "
            f"in {schedule.accumulation} pass(es) of {processes} process(es)",
        ),
        (
            "tokens",
            f"{run.tokens / forwards:,.0f} a pass, {run.tokens / steps:,.0f} a step, "
            f"for {run.total_tokens / steps:,.0f} in its rows; "
            f"an image serves {run.image_reuse:.1f} rows",
        ),
    ]


def memory(
    model: torch.nn.Module, every: int | None, start: Start, schedule: Schedule, processes: int
) -> dict[str, float]:
    """Bytes that a process needs, by kind: an estimate, to which CUDA's own and fragmentation come.

    Gradients are as large as what trains, AdamW's two moments twice that; DeepSpeed trains in 16 bits, with a copy of
    what trains and the moments in 32 (Rajbhandari et al. 2020, arXiv 1910.02054). Activations are those of the largest batch,
    by `activations`.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = sum(parts.size(parameter) * parameter.element_size() for parameter in trained)
    needed: dict[str, float] = {
        "weights": sum(_bytes(parameter) for parameter in model.parameters()),
        "gradients": gradients,
        "optimiser": 2 * gradients,
    }
    strategy = start.strategy
    if strategy.library == "deepspeed" and start.dtype == torch.bfloat16:
        numbers = sum(map(parts.size, trained))
        needed = {
            "weights": sum(min(_bytes(value), 2 * parts.size(value)) for value in model.parameters()),
            "gradients": 2 * numbers,
            "optimiser": 12 * numbers,
        }
    for kind in strategy.divides:
        needed[kind] /= processes
    if strategy.offloads:
        needed |= {"weights": 0, "optimiser": 0}
    return {
        **needed,
        "activations": _activations(model, every, start, schedule),
    }


def _bytes(parameter: torch.nn.Parameter) -> int:
    """Of a whole parameter; one in 4 bits is stored packed."""
    packed = hasattr(parameter, "quant_state")
    return (parameter.numel() if packed else parts.size(parameter)) * parameter.element_size()


def _activations(model: torch.nn.Module, every: int | None, start: Start, schedule: Schedule) -> float:
    backbone: Any = loading.backbone(model)
    config = backbone.config
    text, vision = config.text_config, config.vision_config
    how = _kept(model, start)
    layer = activations.of_text_layer(text, how, dense=text.model_type == "glm4v_text")
    stream = text.hidden_size * how.value
    found = activations.of_layers(text.num_hidden_layers, schedule.peak.tokens, layer, stream, every)
    if any(parameter.requires_grad for parameter in backbone.visual.parameters()):
        patches = schedule.peak.image_tokens * vision.spatial_merge_size**2
        block = activations.of_vision_block(vision, replace(how, fused=False))
        found += activations.of_layers(vision.depth, patches, block, vision.hidden_size * how.value, every)
    return found


def _kept(model: torch.nn.Module, start: Start) -> Kept:
    """How this training keeps activations, as PlannedBatches fuses steps."""
    lora: Any = model.active_peft_config if isinstance(model, PeftModel) else None
    fused = start.device.type == "cuda" and start.strategy.library == "torch"
    return Kept(
        value=start.dtype.itemsize,
        fused=fused and lora is not None,
        whole=lora is None,
        dropout=bool(lora and lora.lora_dropout),
        rank=lora.r if lora else 0,
    )


def _memory_line(needed: dict[str, float]) -> str:
    total, *sizes = (
        tqdm.format_sizeof(size, "iB", 1024) for size in (sum(needed.values()), *needed.values())
    )
    kinds = ", ".join(f"{kind} {size}" for kind, size in zip(needed, sizes, strict=True))
    return f"about {total} a process, an estimate: {kinds}"
