"""QLoRA, which needs a package beside the others."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import common, sft
from benchmarks.gpu_check import environment
from benchmarks.gpu_check.runner import Findings, Skipped
from benchmarks.gpu_check.shapes import forget_peak, on_gpu
from benchmarks.gpu_check.training import Bench, run
from workflow_scripts.training import optional

QLORA_GIB = 24


def qlora(bench: Bench, findings: Findings) -> None:
    """The peak memory of SFT on NF4 weights, one row with the largest image a pass."""
    needs(optional.BITSANDBYTES)
    bench.base.drop()
    model = bench.base.get()
    quantize(model)
    forget_peak()
    findings.figure("weights, GiB", torch.cuda.memory_allocated() / 2**30 if on_gpu() else 0.0)
    with tempfile.TemporaryDirectory() as folder:
        case = common.case(Path(folder), 1, max(bench.shape.sides), images=1)
        with bench.ours(sft, case, [[0]] * bench.shape.steps) as (trainer, _):
            pace = run(trainer)
    bench.base.drop()
    findings.figure("step, s", pace.seconds)
    findings.figure("losses", pace.losses)
    if on_gpu():
        findings.goal(
            f"QLoRA, a row of {case.side} px a pass: below {QLORA_GIB} GiB",
            f"{pace.peak_gib:.1f} GiB",
            pace.peak_gib < QLORA_GIB,
        )


def quantize(model: Any) -> None:
    """Put the weights of `model` into 4 bits where they lie, as loading with `optional.nf4` does."""
    import bitsandbytes as bnb
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    config: Any = optional.nf4()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    replace_with_bnb_linear(model, config.llm_int8_skip_modules, config)
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            old = linear.pop(name)
            weight = bnb.nn.Params4bit(
                old.weight.data,
                requires_grad=False,
                compress_statistics=config.bnb_4bit_use_double_quant,
                quant_type=config.bnb_4bit_quant_type,
                module=module,
            )
            module.weight, module.bias = weight._quantize(old.weight.device), old.bias
            old.weight = None
    model.is_loaded_in_4bit = True
    model.quantization_method = config.quant_method


def needs(package: str) -> None:
    """Skip the check where `package` ("name==version") is missing."""
    name = package.split("==")[0]
    if environment.version(name) == "missing":
        raise Skipped(f"{name} is not installed")
