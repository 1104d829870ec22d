"""An estimate as a person reads it, and as a program does."""

from collections.abc import Sequence
from typing import Any

import yaml

from workflow_scripts.base.columns import aligned
from workflow_scripts.models.shapes import Shape
from workflow_scripts.training.estimation import candidates, needs, speed
from workflow_scripts.training.estimation.candidates import Candidate
from workflow_scripts.training.estimation.sets import Rows

GIB = 2**30
KINDS = {
    "weights": "weights",
    "gradients": "grads",
    "optimiser": "optim.",
    "working": "work",
    "activations": "activ.",
    "logits": "logits",
}  # as `needs` and the heads of the table call them


def as_json(
    shape: Shape,
    rows: Rows,
    found: Sequence[Candidate],
    best: Candidate | None,
    rate: float,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything in plain values: bytes, seconds, numbers."""
    return {
        "parameters": dict(shape.numbers) | {"all": shape.total, "active": round(shape.active)},
        "unknown": list(shape.unknown),
        "adapters": {"modules": len(of_text(shape)), "cache_bytes_per_token": shape.cache_bytes()},
        "data": {
            "rows": rows.rows,
            "images": rows.images,
            "text_tokens": rows.text,
            "image_tokens": rows.image,
        },
        "source": rows.source,
        "rate_tflops": rate,
        "ways": {
            candidate.name: {
                "fits": candidate.fits,
                "gpus": candidate.way.gpus,
                "trained": needs.trained(shape, candidate.way),
                "tokens_per_pass": round(candidate.way.tokens),
                "recomputed": candidate.way.every,
                "bytes": {kind: round(size) for kind, size in candidate.needs.items()},
                "epoch_seconds": round(speed.epoch_seconds(shape, candidate.way, rows, rate)),
            }
            for candidate in found
        },
        "recommended": best.name if best else None,
        "settings": settings,
    }


def of_text(shape: Shape) -> list[str]:
    """The modules that LoRA adapts where the vision tower is left out."""
    return [name for name in shape.targets if "language_model" in name]


def table(
    title: str,
    shape: Shape,
    rows: Rows,
    found: Sequence[Candidate],
    best: Candidate | None,
    memory: float,
    rate: float,
    settings: dict[str, Any],
) -> str:
    """The estimate as aligned text."""
    lines = [title, "", *_parameters(shape, found[0]), "", *_data(rows), "", *_ways(shape, rows, found, rate)]
    lines += ["", *_notes(shape, memory, rate)]
    if best is None:
        return "\n".join([*lines, "", "nothing fits: larger cards, or strategy: zero3_offload"])
    told = f"{best.name} on {best.way.gpus} GPU(s) is what fits on the fewest; laid over config.yaml:"
    lines += ["", _dpo(shape, best, memory)]
    return "\n".join([*lines, "", told, "", yaml.safe_dump(settings, sort_keys=False).rstrip()])


def _dpo(shape: Shape, best: Candidate, memory: float) -> str:
    way = candidates.of_pairs(shape, best.way, memory)
    told = f"DPO by the settings below: {sum(needs.needs(shape, way).values()) / GIB:.1f} GiB a GPU at most"
    return (
        told
        if needs.fits(shape, way, memory)
        else f"{told}, which does not fit: lower dpo.micro_batch_tokens"
    )


def _parameters(shape: Shape, lora: Candidate) -> list[str]:
    modules = of_text(shape)
    names = sorted({name.rpartition(".")[2] for name in modules})
    lines = [f"{part:<18}{number:>16,}" for part, number in shape.numbers.items() if number]
    lines.append(
        f"{'all':<18}{shape.total:>16,}" + (f", {shape.active:,.0f} for a token" if shape.is_moe else "")
    )
    rank = lora.way.settings.lora.rank
    trained = needs.trained(shape, lora.way)
    lines.append(f"{f'LoRA, rank {rank}':<18}{trained:>16,} on {len(modules)} modules: {', '.join(names)}")
    if shape.unknown:
        lines.append(f"not stated anywhere, taken from transformers: {', '.join(shape.unknown)}")
    return lines


def _data(rows: Rows) -> list[str]:
    return [
        f"an epoch: {rows.rows:,} train rows on {rows.images:,} images, about {rows.image:.0f} tokens an image "
        f"({rows.largest} at most) and {rows.text:.0f} a row ({rows.source})"
    ]


def _ways(shape: Shape, rows: Rows, found: Sequence[Candidate], rate: float) -> list[str]:
    head = ["GiB a GPU", "GPUs", "tokens", "again", *KINDS.values(), "all", "fits", "epoch"]
    cells = [head]
    for candidate in found:
        way = candidate.way
        again = {None: "none", 1: "all"}.get(way.every, f"1 in {way.every}")
        sizes = [f"{candidate.needs[kind] / GIB:.1f}" for kind in KINDS]
        cells.append(
            [
                candidate.name,
                str(way.gpus),
                f"{way.tokens:,.0f}",
                again,
                *sizes,
                f"{candidate.total / GIB:.1f}",
                "yes" if candidate.fits else "no",
                _duration(speed.epoch_seconds(shape, way, rows, rate)) if candidate.fits else "–",
            ]
        )
    return aligned(cells, left=1)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _notes(shape: Shape, memory: float, rate: float) -> list[str]:
    return [
        f"GPUs: the fewest of {memory / GIB:.0f} GiB, of which {needs.RESERVED:.0%} are left to CUDA. tokens: unique ones of "
        "the largest pass.",
        "again: layers that recompute. work: divided weights while they are whole, what 4 bits are unpacked",
        "to, autocast's copies. epoch: the text layers' matrix products, "
        f"{speed.OF_LORA} operations a parameter and",
        f"token (full: {speed.OF_FULL}), at {rate:g} TFLOP/s, of which {speed.UTILISED[1]:.0%} to {speed.UTILISED[None]:.0%} "
        "are used, as measured for LoRA",
        "on one H200; nothing else has been measured, and --rate states another card's rate.",
        f"A model that is asked keeps {shape.cache_bytes() / 1000:.0f} kB a token.",
    ]
