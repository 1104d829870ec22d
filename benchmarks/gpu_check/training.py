"""LoRA training of the benchmarks' model on the engine against stock TRL: rows, tokens, utilisation, waits, memory."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from benchmarks import common, dpo, sft, timing
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import Base, Moment, Shape, device, forget_peak, on_gpu, peak_gib
from workflow_scripts.configuration.settings import Lora, Sft
from workflow_scripts.training import memory
from workflow_scripts.training.data.features import FeatureStore, store_key

FASTER = 5  # times stock, at 14 questions
UTILISED = 0.45  # by the 4N count, at 768 px
WAITING = 0.05  # of a step
CELLS: list[tuple[str, ModuleType]] = [("SFT", sft), ("DPO", dpo)]


@dataclass
class Pace:
    """What the steps after the first took."""

    seconds: float  # of a step
    wait: float  # seconds between the end of a step and the start of the next one's forward pass
    peak_gib: float
    losses: list[float]


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ends, and when the first forward pass of each begins, on the GPU's own time line."""

    def __init__(self) -> None:
        self.begun: list[Moment] = []
        self.ended: list[Moment] = []

    def forward(self, *_: Any) -> None:
        """A hook before a forward pass of the model."""
        if len(self.begun) == len(self.ended):
            self.begun.append(Moment.now())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(Moment.now())

    def steps(self) -> Iterator[tuple[float, float]]:
        """(seconds, seconds of them before the forward pass) of each step after the first."""
        for number in range(1, len(self.ended)):
            last = self.ended[number - 1]
            yield last.until(self.ended[number]), last.until(self.begun[number])


def run(trainer: Any) -> Pace:
    """Train to the end. The first step warms up, and may compile."""
    clock = Clock()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    hook = trainer.model.register_forward_pre_hook(clock.forward)
    forget_peak()
    trainer.train()
    hook.remove()
    seconds, waits = zip(*clock.steps(), strict=True)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Pace(statistics.median(seconds), statistics.median(waits), peak_gib(), losses)


@dataclass
class Bench:
    """The model of all cells, and the rate that utilisation is a share of."""

    base: Base
    shape: Shape

    @cached_property
    def rate(self) -> float:
        """Floating-point operations a second of a matrix product, in this very process; 0 on a CPU."""
        return timing.matrix_rate() if on_gpu() else 0.0

    @cached_property
    def _keys(self) -> dict[int, str]:
        return {}

    def features(self, case: common.Case, dataset: Any) -> tuple[FeatureStore, float]:
        """The images' features, and the seconds that they took; the tower is hashed once for all cases of a size."""
        backbone, pixels = self.base.get().model, case.pixels()
        key = self._keys.get(case.side) or store_key(backbone, pixels)
        self._keys[case.side] = key
        started = time.perf_counter()
        store = FeatureStore(case.folder / "features", key)
        store.fill(backbone, pixels, [path for paths in dataset["image_paths"] for path in paths], 2**33)
        return store, time.perf_counter() - started

    @contextmanager
    def ours(
        self, objective: ModuleType, case: common.Case, planned: list[list[int]], **changes: Any
    ) -> Iterator[tuple[Any, float]]:
        """Our trainer, and the seconds of what it does once; the model is bare again after the block."""
        dataset, model = objective.ours(case), self.base.get()
        store, seconds = self.features(case, dataset)
        started = time.perf_counter()
        trainer = objective.engine(
            case, dataset, model, common.adapter(model, "lora"), store, planned, **changes
        )
        seconds += time.perf_counter() - started
        with self.base.bare_again(trainer):
            yield trainer, seconds

    def automatic(self, unique: int) -> dict[str, Any]:
        """The trainer's arguments that our training chooses for passes of `unique` tokens where it is left to choose."""
        text = self.base.get().config.text_config
        every = memory.recomputed(Sft(lora=Lora(dropout=0.0)), text, unique, memory.free(device()))
        if every is None:
            return {"activation_checkpointing": False}
        return {"activation_checkpointing_kwargs": {"use_reentrant": False, "every_n_layers": every}}

    @contextmanager
    def stock(self, objective: ModuleType, case: common.Case, **changes: Any) -> Iterator[Any]:
        """TRL's trainer; the model is bare again after the block."""
        model = self.base.get()
        trainer = objective.stock(case, model, common.adapter(model, "lora"), **changes)
        with self.base.bare_again(trainer):
            yield trainer

    def check(self, findings: Findings) -> None:
        """All cells, those of many questions and large images first."""
        for questions in self.shape.questions:
            for side in self.shape.sides:
                for name, objective in CELLS:
                    self._cell(findings, name, objective, questions, side)

    def _cell(self, findings: Findings, name: str, objective: ModuleType, questions: int, side: int) -> None:
        """One kind of training at one size of image, both trainers."""
        label = f"{name}, {side} px, {questions} questions"
        shape = self.shape
        with tempfile.TemporaryDirectory() as folder:
            case = common.case(Path(folder), questions, side, shape.images)
            rows = len(case.records)
            _, unique = objective.tokens(case, objective.ours(case))
            chosen = self.automatic(unique)
            with self.ours(objective, case, [list(range(rows))] * shape.steps, **chosen) as (trainer, once):
                parameters = timing.text_parameters(trainer.model)
                pace = run(trainer)
            waited = pace.wait / pace.seconds
            flops = parameters * unique / pace.seconds
            measured: dict[str, Any] = {
                "rows/s": rows / pace.seconds,
                "unique tokens/s": unique / pace.seconds,
                "step, s": pace.seconds,
                "wait, ms": 1000 * pace.wait,
                "peak, GiB": pace.peak_gib,
                "once, s": once,
                "first loss": pace.losses[0],
                "last loss": pace.losses[-1],
            }
            if on_gpu():
                measured |= {"utilised, 4N": 4 * flops / self.rate, "6N": 6 * flops / self.rate}
            findings.figure(f"{label}, ours", measured)
            stock_rows = self._stock_rows(case)
            with self.stock(
                objective, case, per_device_train_batch_size=stock_rows, max_steps=shape.stock_steps
            ) as trainer:
                stock = run(trainer)
        findings.figure(
            f"{label}, stock",
            {
                "rows/s": stock_rows / stock.seconds,
                "rows a step": stock_rows,
                "step, s": stock.seconds,
                "wait, ms": 1000 * stock.wait,
                "peak, GiB": stock.peak_gib,
                "first loss": stock.losses[0],
            },
        )
        faster = rows / pace.seconds / (stock_rows / stock.seconds)
        findings.figure(f"{label}, times stock's rows/s", faster)
        if questions == max(shape.questions):
            findings.goal(
                f"{label}: at least {FASTER} times stock's rows/s", f"{faster:.1f}", faster >= FASTER
            )
        if on_gpu() and side == max(shape.sides):
            utilised = measured["utilised, 4N"]
            findings.goal(
                f"{label}: {UTILISED:.0%} utilised by the 4N count", f"{utilised:.1%}", utilised >= UTILISED
            )
        findings.goal(
            f"{label}: waits for the host at most {WAITING:.0%} of a step",
            f"{waited:.1%}",
            waited <= WAITING,
        )

    def _stock_rows(self, case: common.Case) -> int:
        """As many whole images' rows as a pass of `pass_tokens` holds, one image's at least."""
        each = case.dialogue.image_tokens(case.side, case.side) * case.questions
        images = max(1, min(self.shape.images, self.shape.pass_tokens // each))
        return images * case.questions
