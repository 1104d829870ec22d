"""A self-test of a configuration: what cannot learn one batch by heart will learn nothing from a whole set."""

import logging
from dataclasses import replace
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from workflow_scripts.base.errors import UserError
from workflow_scripts.training import memory
from workflow_scripts.training import run as training
from workflow_scripts.training.memory import Settings
from workflow_scripts.training.progress import Progress
from workflow_scripts.training.run import Prepared, Task

logger = logging.getLogger(__name__)

LEAST = 0.01  # loss; what is below counts as 0
# So does this share of the loss at first: tiny stand-ins, whose logits are bounded, come no further than 0.02 of 8.
LEAST_SHARE = 0.01
LEFT_OUT = ("lr_scheduler_kwargs", "eval_on_start")  # of another schedule, and of validations
POINTS = 10  # of the curve that is printed


class UntilLearnt(TrainerCallback):
    """Keeps the loss of each logging step, and ends the training where the batch is learnt."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    @property
    def least(self) -> float:
        """The loss below which the batch is learnt."""
        return max(LEAST, LEAST_SHARE * self.losses[0][1])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append((state.global_step, float(logs["loss"])))
            control.should_training_stop = self.losses[-1][1] < self.least


def overfit(task: Task[Settings], steps: int) -> dict[str, Any]:
    """Train on the first batch of `task` until it is learnt, or a UserError after so many steps; returns the cost.

    The learning rate stays where the configuration has it; what stands against learning by heart (warm-up, dropout, weight
    decay) is left out. No model, metrics or checkpoints are kept.
    """
    name = task.objective.name
    task = replace(task, settings=_settings(task.settings, steps))
    prepared = _one_batch(task, training.prepare(task), steps)
    with memory.explained(name, prepared.settings, prepared.costs, task.max_image_side):
        loaded = training.load(task, prepared)
        progress, watch = Progress(prepared.schedule.loads, task.unfinished), UntilLearnt()
        trainer = training.build(task, prepared, loaded, [progress, watch])
        if trainer.is_world_process_zero():
            logger.info(
                "overfit: %d rows in at most %d steps, each on all of them", len(prepared.dataset), steps
            )
        outcome = training.run(trainer, None, progress)
    if trainer.is_world_process_zero():
        logger.info("loss by step: %s", _curve(watch.losses))
    _check(name, task.settings, watch)
    return outcome


def _settings(settings: Settings, steps: int) -> Settings:
    trainer = settings.model_dump()["trainer"]
    kept = {key: value for key, value in trainer.items() if key not in LEFT_OUT}
    changed = {
        "warmup": 0.0,
        "weight_decay": 0.0,
        "lora": settings.lora.model_copy(update={"dropout": 0.0}),
        "trainer": {**kept, "lr_scheduler_type": "constant"},
        "validation_steps": None,
        "log_steps": max(1, steps // (2 * POINTS)),
    }
    return settings.model_copy(update=changed)


def _one_batch(task: Task[Settings], prepared: Prepared[Settings], steps: int) -> Prepared[Settings]:
    """`prepared` for the rows of its first optimiser step alone, which every step then runs."""
    planned = prepared.schedule
    first = planned.mine[: planned.accumulation]
    rows = sorted(set(gather_object([row for batch in first for row in batch])))  # of all processes
    place = {row: number for number, row in enumerate(rows)}
    mine = [[place[row] for row in batch] for batch in first]
    dataset = prepared.dataset.select(rows)
    schedule = replace(
        planned,
        rows=len(rows),
        mine=mine * steps,
        single_pass=mine if planned.single_pass else [],
        validation=[],
        loads=planned.loads[:1] * steps,
        images=planned.images[:1] * steps,
    )
    arguments = task.objective.arguments(
        prepared.settings, prepared.start, task.unfinished, task.seed, schedule
    )
    arguments.save_strategy = SaveStrategy.NO
    images = {path for paths in dataset["image_paths"] for path in paths}
    return replace(
        prepared,
        dataset=dataset,
        costs=[prepared.costs[row] for row in rows],
        held=[],
        digests={path: digest for path, digest in prepared.digests.items() if path in images},
        schedule=schedule,
        arguments=arguments,
        resume_from=None,
    )


def _curve(losses: list[tuple[int, float]]) -> str:
    """POINTS of the curve, the last among them."""
    every = max(1, len(losses) // POINTS)
    shown = [*losses[:-1:every], losses[-1]]
    return ", ".join(f"{step}: {loss:.4f}" for step, loss in shown)


def _check(name: str, settings: Settings, watch: UntilLearnt) -> None:
    """A UserError where the batch was not learnt, or was known before."""
    (_, first), (step, last) = watch.losses[0], watch.losses[-1]
    if first < LEAST:
        raise UserError(
            f"overfit: the loss is {first:.4f} at the first step, so there is nothing to learn: look by --debug at what is "
            "trained on, or give an untrained --base_model"
        )
    if last >= watch.least:
        falls = "falls slowly" if last < 0.5 * first else "hardly falls"
        raise UserError(
            f"overfit: the loss {falls}: {first:.4f} at first, {last:.4f} after {step} steps of one batch, and not below "
            f"{watch.least:.2g}; raise {name}.learning_rate ({settings.rate.value:g}), give --overfit more steps than {step}, "
            "or look by --debug at what is trained on"
        )
    logger.info(
        "overfit: the loss fell from %.4f to %.4f in %d steps: this configuration learns", first, last, step
    )
