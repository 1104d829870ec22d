"""One training in phases: prepare the rows and their plan, load the model, build the trainer, train, save."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from peft import LoraConfig
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from workflow_scripts.base import environment, files, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import processes
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.models import bases, loading, processors
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training import (
    alike,
    checkpoints,
    early_stopping,
    finished,
    memory,
    model,
    optional,
    parts,
    saving,
    strategies,
    summary,
)
from workflow_scripts.training.arguments import recompute
from workflow_scripts.training.data import features, held_out, rows, schedule
from workflow_scripts.training.data.batching import RowCost
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.data.shared import Shared
from workflow_scripts.training.deadline import Deadline
from workflow_scripts.training.interruption import StopInTime
from workflow_scripts.training.memory import Settings
from workflow_scripts.training.model import Start
from workflow_scripts.training.progress import Progress, curve
from workflow_scripts.training.trainers.base import PlannedBatches
from workflow_scripts.training.trainers.objective import Materials, Objective

logger = logging.getLogger(__name__)

FINAL = "final"  # among the checkpoints, until the model is whole


@dataclass(frozen=True)
class Task(Generic[Settings]):
    """One training of `base_model` on the rows of `data`, whose model goes to `trained`.

    Where validation is asked for, it is on the rows of `validation_data`; without such a file on a part of `data`.
    `unfinished` is the folder of checkpoints, `features` that of kept vision features. `recipe` are the plain values
    of the configuration that the result depends on.
    """

    objective: Objective[Settings]
    settings: Settings
    recipe: dict[str, Any]
    run: str
    model_version: str
    mode: str
    seed: int
    max_image_side: int
    frames: FrameRule
    max_tokens: int
    base_model: Path
    data: Path
    validation_data: Path | None
    trained: Path
    unfinished: Path
    features: Path

    def depends_on(self) -> dict[str, Any]:
        """Everything that the result depends on, but for the images that the rows show."""
        found = {
            "settings": self.recipe,
            "version": versions.RESULTS[self.objective.name],
            "data": files.sha256(self.data),
            "base_model": [str(self.base_model), loading.fingerprint(self.base_model)],
        }
        if self.settings.validation_steps and self.validation_data:
            found["validation_data"] = files.sha256(self.validation_data)
        return found

    @property
    def shared(self) -> Path:
        """The folder of what one of several processes makes for all."""
        return self.unfinished.with_name(f".{self.unfinished.name}.shared")


@dataclass(frozen=True)
class Prepared(Generic[Settings]):
    """The rows and their plan, before there is a model.

    `settings` have the token budget of this try, `digests` those of the images by path; `held` are the rows that are
    validated on. `metrics` are those of a training that has come to this result before.
    """

    settings: Settings
    start: Start
    processor: Any
    dataset: Dataset
    costs: list[RowCost]
    held: list[int]
    digests: dict[str, str]
    depends_on: dict[str, Any]
    schedule: Schedule
    arguments: TrainingArguments
    metrics: dict[str, Any] | None
    resume_from: Path | None


@dataclass(frozen=True)
class Loaded:
    """The model, ready for its method, and how it takes images and trees."""

    model: torch.nn.Module
    lora: LoraConfig | None
    pixels: Pixels
    features: features.FeatureStore | None
    one_sequence: bool


def train(task: Task[Settings], callbacks: Sequence[TrainerCallback] = ()) -> dict[str, Any]:
    """Train, write the model and its metrics.json, and return them.

    What is there already, of a training that depended on the same, is not trained again; metrics.json is then written anew.
    One process that runs out of memory tries again here where `oom_retries` allow; of several, which wait for
    each other by then, all end, and the next start takes the smaller budget.
    """
    while True:
        try:
            return _try_once(task, callbacks)
        except memory.OutOfMemory as error:
            smaller = memory.halve(error.settings, task.unfinished)
            if smaller is None:
                raise
            again = f"{error}; starting over with {task.objective.name}.micro_batch_tokens = {smaller}"
            if processes().count > 1:
                raise UserError(again) from error
            logger.warning("%s", again)
        loading.free_memory()


def _try_once(task: Task[Settings], callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    prepared = prepare(task)
    if prepared.metrics:
        if processes().rank == 0:  # all have read it
            shutil.rmtree(task.shared, ignore_errors=True)
        return prepared.metrics
    name, settings = task.objective.name, prepared.settings
    with memory.explained(name, settings, prepared.costs, task.max_image_side):
        loaded = load(task, prepared)
        progress = Progress(prepared.schedule.loads, task.unfinished)
        trainer = build(task, prepared, loaded, [progress, *callbacks])
        outcome = run(trainer, prepared.resume_from, progress)
        metrics = {
            "stage": name,
            "run": task.run,
            "version": versions.RESULTS[name],
            "method": settings.method,
            "base_model": str(task.base_model),
            "train_rows": prepared.schedule.rows,
            **outcome,
            "micro_batch_tokens": settings.micro_batch_tokens,  # less than configured after oom_retries
            "made": environment.made(),
        }
        return save(trainer, task, prepared, metrics)


def prepare(task: Task[Settings]) -> Prepared[Settings]:
    """Read the rows and plan their batches; find what was done already."""
    depends_on = task.depends_on()
    start = model.start(task.base_model, task.settings)
    processor = processors.load(
        task.base_model, VERSIONS[task.model_version], task.max_image_side, task.frames
    )
    shared = Shared(task.shared, dict(depends_on))
    dataset, costs, held = _rows(task, Dialogue(processor, task.model_version, task.mode), shared)
    images = dict.fromkeys(path for paths in dataset["image_paths"] for path in paths)
    digests = shared.digests(images)
    depends_on["images"] = files.fingerprint([digests[image] for image in sorted(digests)])
    # Another number of processes, strategy or precision comes to the same result, by other steps.
    process = processes()
    of_checkpoints = depends_on | {"processes": [task.settings.strategy, process.count, str(start.dtype)]}
    settings = memory.within_budget(task.settings, task.unfinished, of_checkpoints)
    planned = schedule.make(settings, costs, task.seed, task.objective.equal_batches, held, process)
    # Before the model: they say how it is to be loaded.
    arguments = task.objective.arguments(settings, start, task.unfinished, task.seed, planned)
    alike.check()
    metrics, resume_from = _done_before(task, depends_on, of_checkpoints, arguments)
    if resume_from and (ended := early_stopping.ended_at(resume_from)):
        planned = planned.until(ended)
    return Prepared(
        settings=settings,
        start=start,
        processor=processor,
        dataset=dataset,
        costs=costs,
        held=held,
        digests=digests,
        depends_on=depends_on,
        schedule=planned,
        arguments=arguments,
        metrics=metrics,
        resume_from=resume_from,
    )


def _rows(
    task: Task[Settings], dialogue: Dialogue, shared: Shared
) -> tuple[Dataset, list[RowCost], list[int]]:
    """All rows, what each costs, and which of them are validated on instead of trained on."""
    settings, read = task.settings, task.objective.read_rows
    dataset = shared.rows(task.data, lambda: read(task.data, dialogue))
    held: list[int] = []
    if settings.validation_steps and (path := task.validation_data):
        others = shared.rows(path, lambda: read(path, dialogue))
        dataset, held = held_out.add_rows(dataset, others, settings.validation_rows, task.seed)
    costs = rows.costs(dataset, dialogue, task.max_tokens)
    if settings.validation_steps and not task.validation_data:
        held = held_out.set_aside([row.image for row in costs], settings.validation_rows, task.seed)
    return dataset, costs, held


def _done_before(
    task: Task[Settings],
    depends_on: dict[str, Any],
    of_checkpoints: dict[str, Any],
    arguments: TrainingArguments,
) -> tuple[dict[str, Any] | None, Path | None]:
    """The metrics where all is done, else the checkpoint to resume from, if any.

    One process looks, and all take what it has found.
    """
    found: list[Any] = [None, None]
    if arguments.process_index == 0:
        if metrics := finished.metrics(task.trained, depends_on):
            if checkpoints.belong(task.unfinished, of_checkpoints):  # killed before these were removed
                shutil.rmtree(task.unfinished)
            found = [metrics, None]
        else:
            # Of one that was killed as it wrote it.
            shutil.rmtree(task.unfinished / FINAL, ignore_errors=True)
            found = [None, checkpoints.prepare(task.unfinished, of_checkpoints)]
    metrics, resume_from = broadcast_object_list(found)
    return metrics, resume_from


def load(task: Task[Settings], prepared: Prepared[Settings]) -> Loaded:
    """Load the model, and compute the vision features that are not kept yet."""
    settings, device = prepared.settings, prepared.arguments.device
    loaded, lora = model.load(prepared.start, settings)
    pixels = Pixels(prepared.processor.image_processor)
    kept = None
    if settings.vision_cache_gb and not prepared.start.trains_vision:
        limit = int(settings.vision_cache_gb * 2**30)
        kept = _vision_features(task.features, limit, device, loaded, pixels, prepared.digests)
        if prepared.start.strategy.divides_weights and not kept.holds(list(prepared.digests)):
            logger.info(
                "vision features are computed each time: %s divides the tower, and some are missing",
                settings.strategy,
            )
            kept = None
    return Loaded(loaded, lora, pixels, kept, loading.use_tree_attention(loaded, device))


def _vision_features(
    folder: Path,
    limit: int,
    device: torch.device,
    loaded: torch.nn.Module,
    pixels: Pixels,
    digests: Mapping[str, str],
) -> features.FeatureStore:
    """The features of the images that `digests` names, made where they are missing, up to `limit` bytes."""
    backbone: Any = loading.backbone(loaded)
    with strategies.whole(backbone.visual, device):
        store = features.FeatureStore(folder, features.store_key(backbone, pixels), digests)
        store.fill(backbone, pixels, list(digests), limit)
    return store


def build(
    task: Task[Settings],
    prepared: Prepared[Settings],
    loaded: Loaded,
    callbacks: Sequence[TrainerCallback],
) -> PlannedBatches:
    """The trainer, and a summary of what it is about to do."""
    settings = prepared.settings
    of_rows = [prepared.depends_on.get(name) for name in ("data", "validation_data", "images", "base_model")]
    of_rows.append(prepared.held)
    of_model = [loaded.pixels.settings(), str(loaded.model.dtype), settings.lora.quantize]
    every = _recomputed(prepared, loaded)
    recompute(prepared.arguments, every)
    set_seed(task.seed)  # a new adapter is the same, however the model was loaded
    trainer = task.objective.build(
        Materials(
            model=loaded.model,
            arguments=prepared.arguments,
            dataset=prepared.dataset,
            schedule=prepared.schedule,
            processor=prepared.processor,
            pixels=loaded.pixels,
            features=loaded.features,
            one_sequence=loaded.one_sequence,
            lora=loaded.lora,
            part_rates=prepared.start.rates,
            reference_key=files.fingerprint([*of_rows, *of_model]),
            validates=bool(prepared.held),
            callbacks=[*callbacks, *early_stopping.callbacks(settings), *optional.callbacks(settings)],
        )
    )
    trainer.remove_callback(PrinterCallback)  # Progress says it
    if trainer.is_world_process_zero():
        count = trainer.args.world_size
        for line in summary.lines(trainer.model, settings, prepared.start, prepared.schedule, count, every):
            logger.info(line)
    return trainer


def _recomputed(prepared: Prepared[Settings], loaded: Loaded) -> int | None:
    """Every how many layers one recomputes its activations, alike in all processes: where memory is short."""
    text = loading.backbone(loaded.model).config.text_config
    free = min(gather_object([memory.free(prepared.arguments.device)]))
    return memory.recomputed(prepared.settings, text, prepared.schedule.peak.tokens, free)


def run(trainer: PlannedBatches, resume_from: Path | None, progress: Progress) -> dict[str, Any]:
    """Run `trainer` to its end; returns steps, seconds, final loss, curve and the model's size."""
    set_seed(trainer.args.seed)  # dropout must not depend on what was computed, or read from a cache, before
    stop = StopInTime(Deadline(Path(str(trainer.args.output_dir)), saving.guessed_seconds(trainer.model)))
    trainer.add_callback(stop)
    with logging_redirect_tqdm(), closing(progress), stop.listening():
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    points = curve(trainer.state.log_history)
    seconds, done = progress.seconds, progress.done(trainer.state.global_step)
    named = list(trainer.model.named_parameters())
    return {
        "steps": trainer.state.global_step,
        "seconds": seconds,
        "examples_per_second": done.rows / seconds,
        "image_reuse": done.image_reuse,
        "final_loss": points[-1]["loss"],
        "trainable_parameters": sum(parts.size(value) for _, value in named if value.requires_grad),
        "total_parameters": sum(parts.size(value) for _, value in named),
        "device": str(trainer.args.device),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "curve": points,
        **early_stopping.outcome(trainer.state),
    }


def save(
    trainer: PlannedBatches, task: Task[Settings], prepared: Prepared[Settings], metrics: dict[str, Any]
) -> dict[str, Any]:
    """Put the trained model, its processor and metrics.json into place, then remove the checkpoints; returns metrics."""
    final = task.unfinished / FINAL
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return metrics
    # DPO keeps the SFT adapter as a second, frozen one; it is not part of the result.
    shutil.rmtree(final / "ref", ignore_errors=True)
    for leftover in ("training_args.bin", "README.md"):
        (final / leftover).unlink(missing_ok=True)
    if bases.is_adapter(final):
        loading.name_base(final, loading.base_of(task.base_model))
    prepared.processor.save_pretrained(final)
    metrics = finished.seal(final, prepared.depends_on, metrics)
    with files.replacing_folder(task.trained) as temporary:
        temporary.rmdir()
        shutil.move(final, temporary)  # checkpoints may lie on another disk
    shutil.rmtree(task.unfinished)
    shutil.rmtree(task.shared, ignore_errors=True)
    return metrics
