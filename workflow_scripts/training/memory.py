"""When a training runs out of GPU memory: what to change, and a smaller budget for the next try."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Training
from workflow_scripts.training import activations, checkpoints
from workflow_scripts.training.data.batching import RowCost, load
from workflow_scripts.training.division import STRATEGIES

ROOM = 0.75  # of the free memory, for activations; the rest is for gradients, the head and fragments
BUDGET = "token_budget.json"  # beside the checkpoints, and gone with them when a parameter changes


Settings = TypeVar("Settings", bound=Training)


class BatchTooLarge(Exception):
    """The batch `rows` did not fit into memory at `step`; 0 is before the first."""

    def __init__(self, rows: list[int], step: int) -> None:
        super().__init__(rows, step)
        self.rows, self.step = rows, step


@contextmanager
def of_batch(rows: list[int], step: int) -> Iterator[None]:
    """Say of memory that runs out in the block that it was for these rows."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BatchTooLarge(rows, step) from error


class OutOfMemory(UserError):
    """A batch made by `settings` was too large; a smaller token budget may help."""

    def __init__(self, message: str, settings: Training) -> None:
        super().__init__(message)
        self.settings = settings


@contextmanager
def explained(stage: str, settings: Training, costs: list[RowCost], image_side: int) -> Iterator[None]:
    """Say what to change where memory runs out in the block: of rows with these `costs`, an OutOfMemory."""
    try:
        yield
    except BatchTooLarge as error:
        run = load(costs, error.rows)
        ways = [
            f"{stage}.micro_batch_tokens ({settings.micro_batch_tokens}) below {run.tokens}",
            f"data.max_image_side ({image_side}) lower: {run.image_tokens} of these tokens are of images",
        ]
        what = f"at step {error.step}, in a batch of {run.rows} rows and {run.tokens} tokens"
        raise OutOfMemory(_message(what, ways, stage, settings), settings) from error
    except torch.OutOfMemoryError as error:
        ways = [f"{stage}.method: lora"] if settings.method == "full" else []
        raise UserError(
            _message("beside the batches, by weights, optimiser or one image", ways, stage, settings)
        ) from error


def _message(what: str, ways: list[str], stage: str, settings: Training) -> str:
    if not settings.gradient_checkpointing:
        ways = [*ways, f"{stage}.gradient_checkpointing: true"]
    if not STRATEGIES[settings.strategy].is_zero3:
        ways = [*ways, f"{stage}.strategy: zero3 on more GPUs"]
    ways = ways or [f"{stage}.gpus or {stage}.nodes higher"]
    return f"out of GPU memory {what}; set one of: {'; '.join(ways)}"


def within_budget(settings: Settings, folder: Path, depends_on: dict[str, Any]) -> Settings:
    """`settings` with the token budget that earlier tries, which depended on the same, left in `folder`.

    They have shown that memory is short: automatic checkpointing recomputes all.
    """
    kept = folder / BUDGET
    if not kept.is_file() or not checkpoints.belong(folder, depends_on):
        return settings
    left: dict[str, Any] = {"micro_batch_tokens": files.read_value(kept, "micro_batch_tokens")}
    if settings.gradient_checkpointing is None:
        left["gradient_checkpointing"] = True
    return settings.model_copy(update=left)


def recomputed(settings: Training, text: Any, tokens: int, free: int) -> int | None:
    """Every how many layers one is to recompute its activations; None where all are kept.

    `text` is the language model's configuration; `tokens` are those of the largest forward pass, `free` the bytes of
    memory for them. Automatic for LoRA on whole dense weights in bf16, where steps are fused: by what a layer keeps then,
    8064 tokens of the 9B take 47 GiB; by its peaks with and without recomputation, an H200 needed 48 (no dropout;
    benchmarks/gpu_check).
    """
    if settings.gradient_checkpointing is not None:
        return 1 if settings.gradient_checkpointing else None
    if settings.method != "lora" or settings.lora.vision or settings.strategy != "ddp":
        return 1
    if settings.lora.quantize or settings.precision == "fp32" or text.model_type != "glm4v_text":
        return 1
    how = activations.Kept(fused=True, dropout=settings.lora.dropout > 0, rank=settings.lora.rank)
    kept = activations.of_text_layer(text, how) * tokens * text.num_hidden_layers
    share = ROOM * free / kept  # of the layers, that fits
    return None if share >= 1 else int(1 / (1 - share))


def free(device: torch.device) -> int:
    """Bytes of the GPU's memory that are free; 0 on a CPU, whose memory others use too."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def retries(folder: Path) -> int:
    """How often a smaller budget for the next try was left in `folder`."""
    kept = folder / BUDGET
    return int(files.read_value(kept, "retries")) if kept.is_file() else 0


def halve(settings: Training, folder: Path) -> int | None:
    """Leave half the token budget of `settings` in `folder` for the next try, and return it.

    None where settings.oom_retries are used up. A smaller budget makes other batches, whose steps no checkpoint
    has reached: the next try starts from the beginning.
    """
    kept = folder / BUDGET
    before: dict[str, int] = files.read_object(kept) if kept.is_file() else {}
    if before.get("micro_batch_tokens", settings.micro_batch_tokens) < settings.micro_batch_tokens:
        return before["micro_batch_tokens"]  # another process of the same try was faster
    tries = 1 + before.get("retries", 0)
    if tries > settings.oom_retries:
        return None
    checkpoints.discard(folder)
    smaller = max(1, settings.micro_batch_tokens // 2)
    files.write_json(kept, {"micro_batch_tokens": smaller, "retries": tries})
    return smaller
