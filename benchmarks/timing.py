"""Two trainers in turns, an epoch at a time, and the table of what they took."""

import argparse
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from benchmarks.common import Case, case
from workflow_scripts.models import loading

QUESTIONS = (1, 2, 5, 7, 14, 22)
SIDES = (112, 224, 336, 560)
# Per parameter and token: 2 forward, 2 for the gradient of the input, 2 for that of the weights, which LoRA leaves
# out. What is recomputed under gradient checkpointing does not count (arXiv:2204.02311, appendix B).
FLOPS_PER_PARAMETER = {"full": 6, "lora": 4}


@dataclass
class Cell:
    """One line of the table; rows are questions (SFT) or pairs (DPO), seconds those of one epoch."""

    questions: int
    side: int
    rows: int
    total_tokens: int
    unique_tokens: int
    stock_seconds: float
    seconds: float
    once_seconds: float
    stock_peak_mib: float
    peak_mib: float
    largest_loss_difference: float
    flops: float

    def numbers(self) -> dict:
        return {
            **asdict(self),
            "stock_rows_per_second": self.rows / self.stock_seconds,
            "rows_per_second": self.rows / self.seconds,
            "ratio": self.stock_seconds / self.seconds,
            "ratio_with_once": self.stock_seconds / (self.seconds + self.once_seconds),
            "microseconds_per_unique_token": 1e6 * self.seconds / self.unique_tokens,
            "flops_per_second": self.flops / self.seconds,
        }


def matrix_rate() -> float:
    """Floating-point operations a second of a large matrix product on the GPU, in bf16: the median of ten."""
    size, rates = 8192, []
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(12):
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.matmul(left, right)
        torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - started))
    return statistics.median(rates[2:])


class Losses(TrainerCallback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.seen.append(float(logs["loss"]))


class Peak:
    """Peak memory above what was there before, in MiB: of the device, or of the process."""

    def __enter__(self):
        gc.collect()
        if (
            sys.platform == "linux"
        ):  # give back what earlier runs freed, so that it does not hide what this one takes
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        process = psutil.Process()
        self.before = self.most = process.memory_info().rss
        self.done = threading.Event()

        def watch():
            while not self.done.wait(0.002):
                self.most = max(self.most, process.memory_info().rss)

        self.watcher = threading.Thread(target=watch)
        self.watcher.start()
        return self

    def __exit__(self, *problem):
        if torch.cuda.is_available():
            self.most = torch.cuda.max_memory_allocated()
        else:
            self.done.set()
            self.watcher.join()

    @property
    def mib(self) -> float:
        return (self.most - self.before) / 2**20


def timed(trainer) -> tuple[float, float, list[float]]:
    """(seconds, peak MiB, losses) of one epoch."""
    losses = Losses()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(losses)
    with Peak() as peak:
        started = time.perf_counter()
        trainer.train()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    trainer.remove_callback(losses)
    return seconds, peak.mib, losses.seen


def text_parameters(trained) -> int:
    """Parameters of the text layers, adapters apart: what each token is multiplied with."""
    backbone: Any = loading.backbone(trained)
    named = backbone.language_model.layers.named_parameters()
    return sum(parameter.numel() for name, parameter in named if "lora_" not in name)


def measure(
    case: Case, build_stock: Callable, build: Callable, tokens: tuple[int, int], repeats: int, method: str
) -> Cell:
    """Train both in turns, an epoch at a time, and take medians; the first epoch warms up and counts for the losses.

    `build` returns our trainer and the seconds of what it does once per run.
    """
    stock = build_stock()
    ours, once = build()
    flops = FLOPS_PER_PARAMETER[method] * text_parameters(ours.model) * tokens[1]
    stock_runs, runs = [], []
    for _ in range(repeats + 1):
        stock_runs.append(timed(stock))
        runs.append(timed(ours))
    difference = max(
        abs(a - b)
        for (*_, theirs), (*_, mine) in zip(stock_runs, runs, strict=True)
        for a, b in zip(theirs, mine, strict=True)
    )
    return Cell(
        questions=case.questions,
        side=case.side,
        rows=len(case.records),
        total_tokens=tokens[0],
        unique_tokens=tokens[1],
        stock_seconds=statistics.median(seconds for seconds, *_ in stock_runs[1:]),
        seconds=statistics.median(seconds for seconds, *_ in runs[1:]),
        once_seconds=once,
        stock_peak_mib=max(peak for _, peak, _ in stock_runs),
        peak_mib=max(peak for _, peak, _ in runs),
        largest_loss_difference=difference,
        flops=flops,
    )


HEADER = (
    "questions  side   rows  tokens  unique   stock rows/s   rows/s   ratio  with once   us/token"
    "   peak MiB (stock)   loss diff"
)


def line(numbers: dict) -> str:
    return (
        "{questions:9d}  {side:4d}  {rows:5d}  {total_tokens:6d}  {unique_tokens:6d}   {stock_rows_per_second:12.2f}"
        "  {rows_per_second:7.2f}  {ratio:5.2f}x  {ratio_with_once:8.2f}x  {microseconds_per_unique_token:9.0f}"
        "   {peak_mib:8.0f} ({stock_peak_mib:.0f})   {largest_loss_difference:9.1e}"
    ).format(**numbers)


def main(description: str | None, measure_case: Callable[[Case, argparse.Namespace], Cell]) -> int:
    """Parse the flags, print the table as it grows, then everything as one line of JSON."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--method", choices=["lora", "full"], default="lora" if on_gpu else "full", help="what is trained"
    )
    parser.add_argument("--questions", type=int, nargs="+", default=QUESTIONS, help="per image")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the square images, in pixels")
    parser.add_argument(
        "--repeats", type=int, default=3, help="epochs that are timed, after one that warms up"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    cells = []
    print(HEADER)
    for side in options.sides:
        for questions in options.questions:
            with tempfile.TemporaryDirectory() as folder:
                numbers = measure_case(case(Path(folder), questions, side), options).numbers()
            cells.append(numbers)
            print(line(numbers), flush=True)
    summary = {"device": device_name(), "method": options.method, "cells": cells}
    if on_gpu:
        summary["matrix_flops_per_second"] = rate = matrix_rate()
        best = max(cell["flops_per_second"] for cell in cells) / rate
        print(
            f"model FLOP utilisation: up to {best:.1%} of {rate / 1e12:.0f} TFLOP/s, a matrix product's rate here"
        )
    print(json.dumps(summary))
    return 0


def device_name() -> str:
    return (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    )
