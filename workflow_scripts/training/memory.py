"""When a training runs out of GPU memory: what to change, and a smaller budget for the next try."""

from pathlib import Path

from workflow_scripts import files
from workflow_scripts.errors import UserError
from workflow_scripts.settings import Training
from workflow_scripts.training import checkpoints
from workflow_scripts.training.plan import Row, cost

BUDGET = "token_budget.json"  # beside the checkpoints, and gone with them when a parameter changes


class OutOfMemory(UserError):
    """A batch did not fit: the message says which, and which settings make it smaller.

    `batch` are row numbers of `costs`, and `settings` those that made it.
    """

    def __init__(
        self, stage: str, settings: Training, step: int, batch: list[int], costs: list[Row], image_side: int
    ) -> None:
        self.settings = settings
        tokens = cost(costs, batch)
        images = sum({costs[row].image: costs[row].shared_tokens for row in batch}.values())
        ways = [
            f"{stage}.micro_batch_tokens ({settings.micro_batch_tokens}) below {tokens}",
            f"data.max_image_side ({image_side}) lower: {images} of these tokens are of images",
        ]
        if not settings.gradient_checkpointing:
            ways.append(f"{stage}.gradient_checkpointing: true")
        if not settings.strategy.startswith("zero3"):
            ways.append(f"{stage}.strategy: zero3 on more GPUs")
        super().__init__(
            f"out of GPU memory at step {step}, in a batch of {len(batch)} rows and {tokens} tokens; set one of: "
            + "; ".join(ways)
        )


def within_budget(settings: Training, folder: Path, depends_on: dict) -> Training:
    """`settings` with the token budget that earlier tries, which depended on the same, left in `folder`."""
    kept = folder / BUDGET
    if not kept.is_file() or not checkpoints.belong(folder, depends_on):
        return settings
    return settings.model_copy(update={"micro_batch_tokens": files.read_json(kept)["micro_batch_tokens"]})


def halve(settings: Training, folder: Path) -> int | None:
    """Leave half the token budget of `settings` in `folder` for the next try, and return it.

    None where settings.oom_retries are used up. A smaller budget makes other batches, whose steps no checkpoint
    has reached: the next try starts from the beginning.
    """
    kept = folder / BUDGET
    before = files.read_json(kept) if kept.is_file() else {}
    if before.get("micro_batch_tokens", settings.micro_batch_tokens) < settings.micro_batch_tokens:
        return before["micro_batch_tokens"]  # another process of the same try was faster
    retries = 1 + before.get("retries", 0)
    if retries > settings.oom_retries:
        return None
    checkpoints.discard(folder)
    smaller = max(1, settings.micro_batch_tokens // 2)
    files.write_json(kept, {"micro_batch_tokens": smaller, "retries": retries})
    return smaller
