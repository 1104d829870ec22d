"""The generator against transformers' `generate` in batches of 16 rows: same model, same questions, six tokens each."""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from benchmarks import common, timing
from workflow_scripts.configuration.settings import EvaluationSettings
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.models.pixels import batch

QUESTIONS = (1, 2, 5, 7, 14, 22)
SIDES = (112, 336)
SAMPLES = (1, 8)
ROWS = 48  # questions at least: of as many images, or of common.IMAGES with several each
TOKENS = 6
STOCK_BATCH = 16


@dataclass
class Cell:
    """One line of the table; seconds are those of all questions, `equal` how many got the same greedy answer."""

    questions: int
    side: int
    samples: int
    rows: int
    stock_seconds: float
    seconds: float
    stock_peak_mib: float
    peak_mib: float
    equal: int | None

    def numbers(self) -> dict:
        return {
            **asdict(self),
            "stock_rows_per_second": self.rows / self.stock_seconds,
            "rows_per_second": self.rows / self.seconds,
            "ratio": self.stock_seconds / self.seconds,
        }


def measure(case: common.Case, samples: int, repeats: int) -> Cell:
    """Both in turns, and their medians; the first turn warms up. Several samples are drawn, one is greedy."""
    model = common.model().eval()
    budget = EvaluationSettings().tokens_per_batch
    generator = Generator(model, case.processor, case.dialogue, budget, TOKENS)
    temperature = 1.0 if samples > 1 else None
    runs: dict[Callable, list[tuple[float, float, list[str]]]] = {stock: [], ours: []}
    for _ in range(repeats + 1):
        for way, found in runs.items():
            found.append(timed(lambda way=way: way(generator, case, samples, temperature)))
    (*_, theirs), (*_, mine) = runs[stock][0], runs[ours][0]
    return Cell(
        questions=case.questions,
        side=case.side,
        samples=samples,
        rows=len(case.records),
        stock_seconds=statistics.median(seconds for seconds, *_ in runs[stock][1:]),
        seconds=statistics.median(seconds for seconds, *_ in runs[ours][1:]),
        stock_peak_mib=max(peak for _, peak, _ in runs[stock]),
        peak_mib=max(peak for _, peak, _ in runs[ours]),
        equal=None if temperature else sum(one == other for one, other in zip(theirs, mine, strict=True)),
    )


def timed(answer: Callable[[], list[str]]) -> tuple[float, float, list[str]]:
    """(seconds, peak MiB, texts)"""
    with timing.Peak() as peak:
        started = time.perf_counter()
        texts = answer()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return seconds, peak.mib, texts


def ours(generator: Generator, case: common.Case, samples: int, temperature: float | None) -> list[str]:
    """The texts that the generator writes, the samples of a question one after the other."""
    found = generator.answer(case.records, case.folder, temperature=temperature, samples=samples)
    return [one.text for row in found for one in row]


@torch.inference_mode()
def stock(generator: Generator, case: common.Case, samples: int, temperature: float | None) -> list[str]:
    """The same by `generate`: a row for each question, all about an image together, of similar length."""
    pixels, model = case.pixels(), generator.model
    model.generation_config = GenerationConfig()
    rows = [
        (
            case.dialogue.tokens(case.dialogue.prompt(record["messages"][:-1])),
            [str(case.folder / record["images"][0])],
        )
        for record in case.records
    ]
    order = sorted(range(len(rows)), key=lambda index: (rows[index][1], len(rows[index][0])))
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    )
    texts: dict[int, list[str]] = {}
    for start in range(0, len(order), STOCK_BATCH):
        chosen = order[start : start + STOCK_BATCH]
        inputs = batch([rows[index] for index in chosen], case.processor, pixels)
        written = model.generate(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            **sampling,
            num_return_sequences=samples,
            max_new_tokens=TOKENS,
            eos_token_id=sorted(generator.limits.stops),
            pad_token_id=case.processor.tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :].tolist()
        for place, index in enumerate(chosen):
            answers = written[place * samples : (place + 1) * samples]
            texts[index] = [_text(ids, generator) for ids in answers]
    return [text for _, found in sorted(texts.items()) for text in found]


def _text(ids: list[int], generator: Generator) -> str:
    end = next((place for place, token in enumerate(ids) if token in generator.limits.stops), len(ids))
    kept = ids[: end + 1] if end < len(ids) and ids[end] in generator.kept_stops else ids[:end]
    return generator.processor.tokenizer.decode(kept)


HEADER = "questions  side  samples   rows   stock rows/s   rows/s   ratio   equal   peak MiB (stock)"
LINE = (
    "{questions:9d}  {side:4d}  {samples:7d}  {rows:5d}   {stock_rows_per_second:12.2f}  {rows_per_second:7.2f}"
    "  {ratio:5.2f}x   {equal!s:>5}   {peak_mib:8.0f} ({stock_peak_mib:.0f})"
)


def main() -> int:
    """Parse the flags, print the table as it grows, then everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, nargs="+", default=QUESTIONS, help="per image")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the square images, in pixels")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="per question; one is greedy")
    parser.add_argument(
        "--repeats", type=int, default=3, help="turns that are timed, after one that warms up"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    cells = []
    print(HEADER)
    for samples in options.samples:
        for side in options.sides:
            for questions in options.questions:
                images = max(common.IMAGES, ROWS // questions)
                with tempfile.TemporaryDirectory() as folder:
                    case = common.case(Path(folder), questions, side, images)
                    cells.append(measure(case, samples, options.repeats).numbers())
                print(LINE.format(**cells[-1]), flush=True)
    print(json.dumps({"device": timing.device_name(), "cells": cells}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
