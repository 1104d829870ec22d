"""Answers to many questions on an image: transformers' `generate` row by row against the package's Generator."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import Moment, Shape, forget_peak, peak_gib
from benchmarks.gpu_check.training import Bench
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.models.pixels import batch

IMAGES = 4
TOKENS = 131_072  # kept at once, the default of `evaluation.tokens_per_batch`


def check(bench: Bench, findings: Findings) -> None:
    """Greedy answers of a fixed length to all questions on a few of the larger images, all rows in one batch."""
    shape: Shape = bench.shape
    model = bench.base.get().eval()
    with tempfile.TemporaryDirectory() as folder:
        images = min(IMAGES, shape.images)
        case = common.case(Path(folder), shape.questions[0], max(shape.sides), images)
        generator = Generator(model, case.processor, case.dialogue, TOKENS, shape.new_tokens)
        # Weights are random, and every answer is as long as any: the last token of the vocabulary is hardly written.
        stop = model.config.text_config.vocab_size - 1
        generator.limits = replace(generator.limits, stops=frozenset({stop}))
        ways = {
            "stock": lambda: stock(model, case, shape.new_tokens, [stop]),
            "ours": lambda: [
                [found.text for found in row] for row in generator.answer(case.records, case.folder)
            ],
        }
        texts, rates = {}, {}
        for name, answer in ways.items():
            answer()  # warms up
            forget_peak()
            started = Moment.now()
            texts[name] = answer()
            rates[name] = len(case.records) / started.until(Moment.now())
            findings.figure(
                name,
                {
                    "answers/s": rates[name],
                    "tokens/s": rates[name] * shape.new_tokens,
                    "peak, GiB": peak_gib(),
                },
            )
    alike = sum(a == b for a, b in zip(texts["stock"], texts["ours"], strict=True)) / len(case.records)
    findings.figure("ours, times stock's answers/s", rates["ours"] / rates["stock"])
    findings.figure("answers that are alike", alike)
    model.train()


@torch.inference_mode()
def stock(model: Any, case: common.Case, new_tokens: int, stops: list[int]) -> list[list[str]]:
    """transformers' own `generate`, every row with its image."""
    dialogue = case.dialogue
    rows = [
        (
            dialogue.tokens(dialogue.prompt(record["messages"][:-1])),
            [str(case.folder / name) for name in record["images"]],
        )
        for record in case.records
    ]
    inputs = batch(rows, case.processor, case.pixels())
    written = model.generate(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=stops,
        pad_token_id=case.processor.tokenizer.pad_token_id,
    )
    length = inputs["input_ids"].shape[1]
    return [[case.processor.tokenizer.decode(row[length:])] for row in written.tolist()]
