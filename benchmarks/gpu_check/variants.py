"""Where the time of a step goes, and what ways of training would make of it: SFT, many questions, largest images."""

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import common, sft, timing
from benchmarks.gpu_check import environment
from benchmarks.gpu_check.runner import Findings, Skipped
from benchmarks.gpu_check.shapes import forget_peak, on_gpu, synchronize
from benchmarks.gpu_check.training import Bench, Pace, run
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.models import loading
from workflow_scripts.training import optional
from workflow_scripts.training.engine import fused

PROFILED = 25  # kernels
# The first that fits a kernel's name.
GROUPS = {
    "attention": r"flex|flash|fmha|attention",
    "matmul": r"gemm|nvjet|cutlass|xmma|cublas|splitk|gemv",
    "optimizer": r"multi_tensor|adam",
    "copies": r"memcpy|memset|copy|catarray",
    "elementwise": r"elementwise|reduce|triton|vectorized|softmax|norm|swiglu|liger|index|embedding|scatter|gather",
    "other": "",
}
NO_CHECKPOINTING = {"activation_checkpointing": False}


@dataclass(frozen=True)
class Variant:
    """A way of training: changes of the trainer's arguments and of the model; how many times the images."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Any], None] = lambda model: None
    times: int = 1
    liger: bool = False


def compiled(model: Any) -> None:
    """Each text layer as one graph, the same for all."""
    for layer in loading.backbone(model).language_model.layers:
        layer.compile(dynamic=True)


def variants() -> list[Variant]:
    """Those that this machine can run, the most telling first."""
    found = [
        Variant("as it is"),
        Variant("without checkpointing", NO_CHECKPOINTING),
        Variant("not fused", {}, fused.unfuse),
        Variant("every other layer checkpointed", _every(2)),
        Variant("twice the images", times=2),
    ]
    if on_gpu() and environment.version(optional.LIGER.split("==")[0]) != "missing":
        kernels = optional.liger(Sft(liger=True), torch.device("cuda"))
        found.append(Variant("Liger", kernels, liger=True))
    if on_gpu():
        found.append(Variant("compiled layers", {}, compiled))
    return found


def _every(layers: int) -> dict[str, Any]:
    return {"activation_checkpointing_kwargs": {"use_reentrant": False, "every_n_layers": layers}}


def check(bench: Bench, findings: Findings) -> None:
    """Steps of each variant: utilisation and peak memory; one that fails is a line."""
    for variant in variants():
        started = time.monotonic()
        measured = _measured(bench, variant)
        forget_peak()
        if isinstance(measured, dict):
            measured["altogether, s"] = time.monotonic() - started
        findings.figure(variant.name, measured)


def _measured(bench: Bench, variant: Variant) -> dict[str, Any] | str:
    """Its figures, or the line that says why there are none; of a failure no frame is kept, for it holds tensors."""
    shape = bench.shape
    try:
        with tempfile.TemporaryDirectory() as folder:
            case = common.case(
                Path(folder), shape.questions[0], max(shape.sides), variant.times * shape.images
            )
            _, unique = sft.tokens(case, sft.ours(case))
            rows = list(range(len(case.records)))
            with bench.ours(sft, case, [rows] * shape.steps, **variant.arguments) as (trainer, _):
                variant.change(trainer.model)
                if variant.liger:
                    trainer.add_callback(optional.OwnGradients())
                parameters = timing.text_parameters(trainer.model)
                pace = run(trainer)
    except Exception as error:
        lines = (str(error.__cause__ or error)).strip().splitlines() or [""]
        return f"{type(error.__cause__ or error).__name__}: {lines[0][:200]}"
    return _figures(pace, len(rows), unique, parameters, bench.rate)


def _figures(pace: Pace, rows: int, unique: int, parameters: int, rate: float) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "step, s": pace.seconds,
        "rows/s": rows / pace.seconds,
        "peak, GiB": pace.peak_gib,
        "losses": pace.losses,
    }
    if rate:
        flops = parameters * unique / pace.seconds
        measured |= {"utilised, 4N": 4 * flops / rate, "6N": 6 * flops / rate}
    return measured


class SecondStep(TrainerCallback):  # type: ignore[misc]
    """A profile of the kernels of a training's second step, and the step's seconds."""

    def __init__(self) -> None:
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        synchronize()
        if state.global_step == 1:
            self.profiler.start()
            self.seconds = time.perf_counter()
        elif state.global_step == 2:
            self.seconds = time.perf_counter() - self.seconds
            self.profiler.stop()


def profile(bench: Bench, findings: Findings) -> None:
    """The kernels of a step, as it is and without checkpointing: by group, with idle time, and the largest."""
    if not on_gpu():
        raise Skipped("there is no GPU")
    for variant in variants()[:2]:
        second = SecondStep()
        with tempfile.TemporaryDirectory() as folder:
            case = common.case(
                Path(folder), bench.shape.questions[0], max(bench.shape.sides), bench.shape.images
            )
            planned = [list(range(len(case.records)))] * 2
            with bench.ours(sft, case, planned, **variant.arguments) as (trainer, _):
                variant.change(trainer.model)
                trainer.add_callback(second)
                trainer.train()
        found = [(entry.key, entry.self_device_time_total / 1e6, entry.count)
                 for entry in second.profiler.key_averages()]  # fmt: skip
        _report(variant.name, found, second.seconds, findings)


def _report(name: str, found: list[tuple[str, float, int]], seconds: float, findings: Findings) -> None:
    """Shares of a step of `seconds`, of kernels as (name, seconds, calls)."""
    shares: Counter[str] = Counter()
    for kernel, taken, _ in found:
        shares[group(kernel)] += taken / seconds
    shares["idle"] = 1 - sum(shares.values())
    findings.figure(f"{name}, step, s", seconds)
    findings.figure(f"{name}, shares", dict(shares))
    for number, (kernel, taken, calls) in enumerate(
        sorted(found, key=lambda entry: -entry[1])[:PROFILED], start=1
    ):
        findings.figure(
            f"{name}, kernel {number}",
            f"{taken / seconds:.1%} {group(kernel)}, {calls} calls, {kernel[:160]}",
        )


def group(kernel: str) -> str:
    """Which of GROUPS a kernel belongs to."""
    return next(name for name, pattern in GROUPS.items() if re.search(pattern, kernel, re.IGNORECASE))
