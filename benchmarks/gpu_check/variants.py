"""Other ways to run a step of SFT with many questions on the largest images: what each is worth."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.models.glm4v import modeling_glm4v

from benchmarks import common, sft, timing
from benchmarks.gpu_check.extras import needs
from benchmarks.gpu_check.runner import Findings, Skipped
from benchmarks.gpu_check.shapes import on_gpu
from benchmarks.gpu_check.training import Bench, run
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.models import loading
from workflow_scripts.training import optional

NOTHING_AGAIN: dict[str, Any] = {"activation_checkpointing": False}
EVERY_SECOND_LAYER: dict[str, Any] = {
    "activation_checkpointing_kwargs": {"use_reentrant": False, "every_n_layers": 2}
}


def checkpointing(bench: Bench, findings: Findings) -> None:
    """Recomputing less in the backward pass, which leaves room for fewer images a pass."""
    measure(bench, findings, "no checkpointing", 2, NOTHING_AGAIN)
    measure(bench, findings, "every second layer", 4, EVERY_SECOND_LAYER)


def liger(bench: Bench, findings: Findings) -> None:
    """Liger's norms and MLPs."""
    needs(optional.LIGER)
    if not on_gpu():
        raise Skipped("Liger's kernels need a GPU")
    kernels = optional.liger(Sft(liger=True), torch.device("cuda"))
    norm = modeling_glm4v.Glm4vRMSNorm
    try:
        measure(bench, findings, "Liger", bench.shape.images, kernels)
        measure(bench, findings, "Liger, no checkpointing", 4, kernels | NOTHING_AGAIN)
    finally:  # Liger changes the model and the module that it is of
        modeling_glm4v.Glm4vRMSNorm = norm
        bench.base.drop()


def compiled(bench: Bench, findings: Findings) -> None:
    """Text layers compiled by PyTorch, all as one graph of any length."""
    if not on_gpu():
        raise Skipped("a CPU's compiler takes minutes")
    layers = bench.base.get().model.language_model.layers

    def compile_layers(trainer: Any) -> None:
        for layer in loading.backbone(trainer.model).language_model.layers:
            layer.compile(dynamic=True)

    try:
        measure(bench, findings, "compiled layers", bench.shape.images, {}, compile_layers)
        measure(bench, findings, "compiled layers, no checkpointing", 4, NOTHING_AGAIN, compile_layers)
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def measure(
    bench: Bench,
    findings: Findings,
    name: str,
    images: int,
    changes: dict[str, Any],
    prepare: Callable[[Any], None] = lambda trainer: None,
) -> None:
    """One way: `changes` of the trainer's arguments, and what `prepare` does to the trainer."""
    shape = bench.shape
    images = min(images, shape.images)
    with tempfile.TemporaryDirectory() as folder:
        case = common.case(Path(folder), shape.questions[0], max(shape.sides), images)
        rows = len(case.records)
        _, unique = sft.tokens(case, sft.ours(case))
        with bench.ours(sft, case, [list(range(rows))] * shape.steps, **changes) as (trainer, _):
            prepare(trainer)
            parameters = timing.text_parameters(trainer.model)
            pace = run(trainer)
    measured: dict[str, Any] = {
        "images a pass": images,
        "rows/s": rows / pace.seconds,
        "unique tokens/s": unique / pace.seconds,
        "peak, GiB": pace.peak_gib,
        "first loss": pace.losses[0],
        "last loss": pace.losses[-1],
    }
    if on_gpu():
        measured["utilised, 4N"] = 4 * parameters * unique / pace.seconds / bench.rate
    findings.figure(name, measured)
