"""What both benchmarks share: the model, the data, the stock trainers' order, timing and the table."""

import argparse
import ctypes
import gc
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch.utils.data import SequentialSampler
from transformers import AutoModelForImageTextToText, PrinterCallback, TrainerCallback, set_seed

from workflow_scripts import files
from workflow_scripts.models import loading, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels

VERSION, MODE = "4.1v", "base"
QUESTIONS = (1, 2, 5, 7, 14, 22)
SIDES = (112, 224, 336, 560)
IMAGES = 6
WORDS = (
    "is",
    "there",
    "a",
    "nodule",
    "left",
    "lung",
    "what",
    "organ",
    "shows",
    "image",
    "chest",
    "head",
    "kidney",
)
ROWS_PER_BATCH = 14  # at least; whole images

# Glm4v with six text layers and four of vision: small enough for two cores, and most of the time is still the
# language model's, as it is for the 9B.
SMALL_TEXT = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
SMALL_VISION = {"hidden_size": 96, "depth": 4, "num_heads": 4, "intermediate_size": 256}
# The shapes of GLM-4.1V-9B; weights are random.
LARGE_TEXT = {
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "vocab_size": 151552,
}
LARGE_VISION = {"hidden_size": 1536, "depth": 24, "num_heads": 12, "intermediate_size": 13696}


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

    def numbers(self) -> dict:
        return {
            **asdict(self),
            "stock_rows_per_second": self.rows / self.stock_seconds,
            "rows_per_second": self.rows / self.seconds,
            "ratio": self.stock_seconds / self.seconds,
            "ratio_with_once": self.stock_seconds / (self.seconds + self.once_seconds),
            "microseconds_per_unique_token": 1e6 * self.seconds / self.unique_tokens,
        }


@dataclass
class Case:
    """Dialogues on `IMAGES` images of one size, and what trains on them."""

    folder: Path
    questions: int
    side: int
    processor: object
    records: list[dict]

    @property
    def dialogue(self) -> Dialogue:
        return Dialogue(self.processor, VERSION, MODE)

    @property
    def batch(self) -> int:
        """Rows of a batch: of as many whole images as make ROWS_PER_BATCH or little more."""
        return min(self.questions * -(-ROWS_PER_BATCH // self.questions), len(self.records))

    def pixels(self) -> Pixels:
        return Pixels(self.processor.image_processor)

    def image(self, record: dict) -> Image.Image:
        return Image.open(self.folder / record["images"][0])

    def write(self, name: str, records: list[dict]) -> Path:
        files.write_jsonl(self.folder / name, records)
        return self.folder / name


def case(folder: Path, questions: int, side: int) -> Case:
    """The same every time: smooth pictures, questions of four to ten words, answers of one to three."""
    chance = random.Random(f"{questions} {side}")
    write = VERSIONS[VERSION].answer_format(MODE).write
    records = []
    for number in range(IMAGES):
        name = f"{number}.jpg"
        picture = Image.effect_noise((24, 24), 60 + number).resize((side, side), Image.Resampling.BICUBIC)
        picture.convert("RGB").save(folder / name, quality=95)
        for question in range(questions):
            asked = " ".join(chance.choices(WORDS, k=chance.randint(4, 10)))
            answer = write(" ".join(chance.choices(WORDS, k=chance.randint(1, 3))))
            records.append(
                {
                    "id": f"{number}-{question}",
                    "images": [name],
                    "messages": [
                        {"role": "user", "content": f"<image>{asked}?"},
                        {"role": "assistant", "content": answer},
                    ],
                }
            )
    processor = standins.processor(VERSIONS[VERSION])
    area = 2 * side**2  # counts two frames
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    return Case(folder, questions, side, processor, records)


def model(large: bool):
    """A model with random weights, the same every time; the vision tower is frozen."""
    config = standins.model_config(VERSIONS[VERSION])
    config.text_config.update(LARGE_TEXT if large else SMALL_TEXT)
    config.text_config.head_dim = config.text_config.hidden_size // config.text_config.num_attention_heads
    rotated = config.text_config.head_dim // 4
    config.text_config.rope_parameters["mrope_section"] = [
        rotated - 2 * (rotated * 3 // 8),
        *[rotated * 3 // 8] * 2,
    ]
    config.vision_config.update(LARGE_VISION if large else SMALL_VISION)
    config.vision_config.out_hidden_size = config.text_config.hidden_size
    config.vision_config.image_size = 336
    set_seed(0)
    device, dtype = loading.device_and_dtype(1)
    with torch.device(device):
        made = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    for parameter in made.model.visual.parameters():
        parameter.requires_grad_(False)
    return made


class StockOrder:
    """Mixed into a stock trainer: rows in the order of the dataset, instead of at random."""

    def _get_train_sampler(self, dataset=None):
        return SequentialSampler(self.train_dataset)


def arguments(case: Case, folder: Path, epochs: int = 1) -> dict:
    """What SFTConfig and DPOConfig share."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": case.batch,
        "num_train_epochs": epochs,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "max_length": None,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": on_gpu,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "remove_unused_columns": False,
        "router_aux_loss_coef": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def in_order(case: Case) -> list[list[int]]:
    """The batches that stock makes."""
    rows = len(case.records)
    return [list(range(start, min(start + case.batch, rows))) for start in range(0, rows, case.batch)]


def unique_tokens(case: Case, collator, dataset) -> int:
    """Tokens that the language model runs over in an epoch, padding included."""
    batches = (collator([dataset[index] for index in batch]) for batch in in_order(case))
    return sum(batch["tree"]["input_ids"].numel() for batch in batches)


class Losses(TrainerCallback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
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


def measure(
    case: Case, build_stock: Callable, build: Callable, tokens: tuple[int, int], repeats: int
) -> Cell:
    """Train both in turns, an epoch at a time, and take medians; the first epoch warms up and counts for the losses.

    `build` returns our trainer and the seconds of what it does once per run.
    """
    stock = build_stock()
    ours, once = build()
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


def main(description: str, measure_case: Callable[[Case, argparse.Namespace], Cell]) -> int:
    """Parse the flags, print the table as it grows, then everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--questions", type=int, nargs="+", default=QUESTIONS, help="per image")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the square images, in pixels")
    parser.add_argument(
        "--repeats", type=int, default=3, help="epochs that are timed, after one that warms up"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    cells = []
    print(HEADER)
    for side in options.sides:
        for questions in options.questions:
            with tempfile.TemporaryDirectory() as folder:
                numbers = measure_case(case(Path(folder), questions, side), options).numbers()
            cells.append(numbers)
            print(line(numbers), flush=True)
    print(json.dumps({"device": _device(), "cells": cells}))
    return 0


def _device() -> str:
    return (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    )
