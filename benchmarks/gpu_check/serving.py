"""What vLLM makes of an exported model beside transformers: log-probabilities of the same tokens and images."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model

from benchmarks import common
from benchmarks.gpu_check import by_vllm, environment
from benchmarks.gpu_check.runner import Findings, Skipped
from benchmarks.gpu_check.shapes import device, forget_peak, on_gpu
from benchmarks.gpu_check.training import Bench
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading
from workflow_scripts.models.pixels import batch, picture
from workflow_scripts.stages import export

LAYERS = 2  # of text and of vision, at their true width
WORSE = 2.0  # times transformers' own error in bf16
SMALLEST = {True: 0.01, False: 1e-4}  # nats a token, for errors that are small by chance; in fp32 on a CPU
TELLING = 5.0  # times what is allowed, that a lost adapter must make


@dataclass(frozen=True)
class Scored:
    """Token ids as a model ran them, and the log-probability of each but the first."""

    ids: list[int]
    scores: list[float]


def check(bench: Bench, findings: Findings) -> None:
    """A model with an adapter, exported: what transformers and vLLM say of it in bf16, against its weights in fp32."""
    bench.base.drop()
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = common.case(folder, min(3, bench.shape.questions[0]), min(bench.shape.sides), images=2)
        base, adapter, exported = _models(folder, case)
        true = by_transformers(exported, torch.float32, case)
        own = _apart(by_transformers(exported, dtype, case), true, case)
        allowed = WORSE * own + SMALLEST[on_gpu()]
        findings.figure("transformers, nats a token from fp32", own)
        lost = _apart(by_transformers(base, dtype, case), true, case)
        findings.goal(
            f"a lost adapter would show: {TELLING:g} times what is allowed ({allowed:.2g})",
            f"{lost:.2g}",
            lost >= TELLING * allowed,
        )
        for who, score in (("the adapter over its base", _over_base), ("vLLM", _served)):
            _compare(findings, who, score(adapter, exported, case), true, case, allowed)


def _over_base(adapter: Path, exported: Path, case: common.Case) -> list[Scored]:
    return by_transformers(adapter, torch.bfloat16 if on_gpu() else torch.float32, case)


def _served(adapter: Path, exported: Path, case: common.Case) -> list[Scored]:
    return served(exported, case, interpreter())


def _compare(
    findings: Findings, who: str, found: list[Scored], true: list[Scored], case: common.Case, allowed: float
) -> None:
    same = [one.ids for one in found] == [one.ids for one in true]
    findings.goal(f"{who}: the same tokens, those of images too", "yes" if same else "no", same)
    if same:
        apart = _apart(found, true, case)
        findings.goal(
            f"{who}: at most {allowed:.2g} nats a token from fp32", f"{apart:.2g}", apart <= allowed
        )


def _models(folder: Path, case: common.Case) -> tuple[Path, Path, Path]:
    """Folders of a model with random weights, of an adapter on it, and of the export of both."""
    base, adapter, exported = (folder / name for name in ("base", "adapter", "exported"))
    config = common.model_config()
    config.text_config.num_hidden_layers = config.vision_config.depth = LAYERS
    model = common.model(config)
    model.save_pretrained(base)
    lora = adapters.lora_config(model, Lora(dropout=0.0, peft={"init_lora_weights": False}))
    get_peft_model(model, lora).save_pretrained(adapter)
    loading.name_base(adapter, base)
    for place in (base, adapter):
        case.processor.save_pretrained(place)
    export.export_model(adapter, common.VERSION, common.MODE, exported)
    return base, adapter, exported


def _rows(case: common.Case) -> list[tuple[list[int], str]]:
    """Token ids of question and answer, the image one placeholder, and the image's path."""
    dialogue = case.dialogue
    return [
        (
            [
                token
                for turn in dialogue.turns(record)
                for token in dialogue.tokens(turn.prompt + turn.completion)
            ],
            str(case.folder / record["images"][0]),
        )
        for record in case.records
    ]


@torch.inference_mode()
def by_transformers(path: Path, dtype: torch.dtype, case: common.Case) -> list[Scored]:
    """The rows of `case`, one at a time, by the model or adapter at `path`."""
    model, pixels, found = loading.model(path, dtype, device()).eval(), case.pixels(), []
    for ids, image in _rows(case):
        inputs = batch([(ids, [image])], case.processor, pixels)
        shown = inputs["input_ids"][0]
        logits = model(**{name: value.to(device()) for name, value in inputs.items()}).logits[0, :-1]
        scores = logits.float().log_softmax(-1).gather(-1, shown[1:, None].to(device()))[:, 0]
        found.append(Scored(shown.tolist(), scores.tolist()))
    del model
    forget_peak()
    return found


def interpreter() -> str:
    """The Python that has vLLM."""
    if not on_gpu():
        raise Skipped("vLLM needs a GPU; the export was compared with transformers alone")
    if chosen := os.environ.get("GPU_CHECK_VLLM"):
        return chosen
    if environment.version("vllm") == "missing":
        raise Skipped("vllm is not installed; GPU_CHECK_VLLM=PYTHON names an interpreter that has it")
    return sys.executable


def served(model: Path, case: common.Case, python: str) -> list[Scored]:
    """The rows of `case` by vLLM, in a process of the interpreter `python`."""
    pixels, prompts = case.pixels(), []
    for number, (ids, image) in enumerate(_rows(case)):
        shown = case.folder / f"shown-{number}.png"
        picture(*pixels(image), pixels.image_processor).save(shown)
        prompts.append({"ids": ids, "image": str(shown)})
    longest = max(len(one["ids"]) for one in prompts) + case.dialogue.image_tokens(case.side, case.side)
    asked, answered = case.folder / "asked.json", case.folder / "answered.json"
    asked.write_text(json.dumps({"model": str(model), "longest": longest + 8, "prompts": prompts}))
    # Another interpreter has packages of its own.
    kept = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" or python == sys.executable
    }
    ran = subprocess.run(
        [python, by_vllm.__file__, str(asked), str(answered)], env=kept, capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or ["vLLM ended without a word"])[-1])
    return [Scored(**one) for one in json.loads(answered.read_text())]


def _apart(found: Sequence[Scored], true: Sequence[Scored], case: common.Case) -> float:
    """The mean difference of log-probabilities over all tokens of text."""
    differences = [
        abs(score - right)
        for one, other in zip(found, true, strict=True)
        for token, score, right in zip(other.ids[1:], one.scores, other.scores, strict=True)
        if token != case.processor.image_token_id
    ]
    return sum(differences) / len(differences)
