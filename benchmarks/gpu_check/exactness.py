"""The engine in bf16 beside stock TRL in bf16: how far each is from stock in fp32, in losses and gradients."""

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from benchmarks import common, dpo, sft
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import Shape, forget_peak, on_gpu
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters

OBJECTIVES: dict[str, ModuleType] = {"SFT": sft, "DPO": dpo}
LAYERS = 2  # of text and of vision, at their true width
WORSE = 1.5  # times stock's own error in bf16
# Of a sum of thousands of terms in bf16, whose relative precision is 2 ** -8; fp32's on a CPU.
SMALLEST = {True: 2e-3, False: 1e-5}


def check(shape: Shape, findings: Findings) -> None:
    """One step of SFT and one of DPO by three trainers, from the same weights and the same adapter."""
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default, for the tower's convolution
    for name, objective in OBJECTIVES.items():
        loss, gradients = _step(shape, objective, engine=False, dtype=torch.float32)
        dtype = torch.bfloat16 if on_gpu() else torch.float32
        errors = {}
        for who, engine in (("ours", True), ("stock", False)):
            found_loss, found = _step(shape, objective, engine, dtype)
            errors[who] = {
                "loss": abs(found_loss - loss) / abs(loss),
                "gradients": _error(found, gradients),
            }
        findings.figure(f"{name}, loss of stock in fp32", loss)
        findings.figure(f"{name}, relative errors in {str(dtype).removeprefix('torch.')}", errors)
        for what in ("loss", "gradients"):
            ours, stock = errors["ours"][what], max(errors["stock"][what], SMALLEST[on_gpu()])
            findings.goal(
                f"{name}: {what} err at most {WORSE} times as much as stock's, or by {SMALLEST[on_gpu()]:g}",
                f"{ours:.2g} beside {errors['stock'][what]:.2g}",
                ours <= WORSE * stock,
            )


def _step(
    shape: Shape, objective: ModuleType, engine: bool, dtype: torch.dtype
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the adapter's gradients, by name, of a first step on all rows of two images."""
    config = common.model_config()
    config.text_config.num_hidden_layers = config.vision_config.depth = LAYERS
    with tempfile.TemporaryDirectory() as folder:
        case = common.case(Path(folder), min(3, shape.questions[0]), min(shape.sides), images=2)
        model = common.model(config).to(dtype)
        # A new adapter's second matrix is zero, and so is the gradient of the first.
        lora = adapters.lora_config(model, Lora(dropout=0.0, peft={"init_lora_weights": False}))
        changes: dict[str, Any] = {
            "bf16": dtype == torch.bfloat16,
            "max_grad_norm": 1e9,
            "per_device_train_batch_size": len(case.records),
            "max_steps": 1,
        }
        set_seed(0)
        if engine:
            dataset = objective.ours(case)
            features = common.kept_features(case.folder, model, case.pixels(), dataset)
            set_seed(0)
            planned = [list(range(len(case.records)))]
            trainer = objective.engine(case, dataset, model, lora, features, planned, **changes)
        else:
            trainer = objective.stock(case, model, lora, **changes)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # peft rounds those on a model in bf16, and none on one in fp32
                parameter.data = parameter.data.bfloat16().float()
        seen = _First()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(seen)
        trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    del trainer, model
    forget_peak()
    return loss, seen.gradients


class _First(TrainerCallback):  # type: ignore[misc]
    """The gradients of a step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.gradients[name] = parameter.grad.detach().float().cpu()


def _error(found: dict[str, torch.Tensor], true: dict[str, torch.Tensor]) -> float:
    """‖found - true‖ / ‖true‖ over all gradients; infinite where one is missing."""
    if found.keys() != true.keys():
        return float("inf")
    apart = sum(float((found[name] - true[name]).square().sum()) for name in true)
    whole = sum(float(value.square().sum()) for value in true.values())
    return float((apart / whole) ** 0.5)
