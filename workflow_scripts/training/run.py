"""What sft and dpo have in common: resume, load, train, write, record."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from workflow_scripts import tracking
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config, Training
from workflow_scripts.models import loading, processors
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training import checkpoints, early_stopping, memory, running, strategies, summary
from workflow_scripts.training.data import features, held_out, rows
from workflow_scripts.training.data.batching import Row
from workflow_scripts.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """What a stage builds its trainer from: the arguments of its collator and its own.

    `passes` are this process's batches of a single pass over the rows; `key` names what the reference's
    log-probabilities depend on.
    """

    collator: dict
    shared: dict
    passes: list[list[int]]
    key: str


@dataclass(frozen=True)
class Stage:
    """What sft and dpo do differently: how rows are read, the trainer's arguments made, and the trainer built.

    `configure` takes the stage's settings and the arguments that both have in common.
    """

    name: str
    read_rows: Callable[[Path, Dialogue], Dataset]
    configure: Callable[[Training, dict], TrainingArguments]
    build: Callable[[Inputs], Trainer]


@dataclass(frozen=True)
class Task:
    """One training: `base_model` on the rows of `data`, into `results/{stage}/{run}/`.

    Where validation is asked for, it is on the rows of `validation_data`; without such a file on a part of `data`.
    """

    stage: Stage
    settings: Config
    layout: Layout
    run: Run
    base_model: Path
    data: Path
    validation_data: Path | None = None

    @property
    def own(self) -> Training:
        """The settings of the stage."""
        return getattr(self.settings, self.stage.name)

    @property
    def folder(self) -> Path:
        """Where unfinished training is kept."""
        return self.layout.checkpoints(self.stage.name, self.run)

    def depends_on(self) -> dict:
        """Everything that the result depends on, but for the images that the rows show."""
        # What else is set about the data acts through them.
        of_data = {"data": {"max_image_side": self.settings.data.max_image_side}}
        found = {
            "settings": dependencies.stage_settings(self.settings, self.stage.name) | of_data,
            "data": files.sha256(self.data),
            "base_model": [str(self.base_model), loading.fingerprint(self.base_model)],
        }
        if self.own.validation_steps and self.validation_data:
            found["validation_data"] = files.sha256(self.validation_data)
        return found


def train(task: Task) -> dict:
    """Train, write the model and its metrics.json, and return them.

    One process that runs out of memory tries again here where `oom_retries` allow; of several, which wait for
    each other by then, all end, and the next start takes the smaller budget.
    """
    while True:
        try:
            return _try_once(task)
        except memory.OutOfMemory as error:
            smaller = memory.halve(error.settings, task.folder)
            if smaller is None:
                raise
            again = f"{error}; starting over with {task.stage.name}.micro_batch_tokens = {smaller}"
            if _processes() > 1:
                raise UserError(again) from error
            logger.warning("%s", again)
        loading.free_memory()


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def _try_once(task: Task) -> dict:
    settings, folder, depends_on = task.settings, task.folder, task.depends_on()
    parameters = dependencies.stage_settings(settings, task.stage.name)
    rates = running.part_rates(task.base_model, task.own)
    image_side = settings.data.max_image_side
    processor = processors.load(task.base_model, VERSIONS[task.run.model_version], image_side)
    dataset, costs, held = _rows(task, Dialogue(processor, task.run.model_version, task.run.mode))
    images = dict.fromkeys(path for paths in dataset["image_paths"] for path in paths)
    digests = {image: files.sha256(Path(image)) for image in images}
    depends_on["images"] = files.fingerprint([digests[image] for image in sorted(digests)])
    # Another number of processes, strategy or precision comes to the same result, by other steps.
    _, dtype = loading.device_and_dtype(task.own.gpus, task.own.precision)
    of_checkpoints = depends_on | {"processes": [task.own.strategy, _processes(), str(dtype)]}
    own = memory.within_budget(task.own, folder, of_checkpoints)
    planned = running.planned(own, costs, settings.seed, equal=task.stage.name == "dpo", held=held)
    # Before the model: they say how it is to be loaded.
    arguments = task.stage.configure(own, running.arguments(own, folder, settings.seed, planned))
    resume_from = _prepared(folder, of_checkpoints, arguments)
    with (
        memory.explained(task.stage.name, own, costs, image_side),
        tracking.stage(settings, task.layout, task.run, task.stage.name, parameters) as record,
    ):
        model, lora = running.trainable_model(task.base_model, own)
        pixels = Pixels(processor.image_processor)
        collator = {"processor": processor, "pixels": pixels}
        if own.vision_cache_gb and not running.trains_vision(task.base_model, own):
            collator["features"] = _vision_features(own, task.layout, arguments, model, pixels, digests)
        collator["one_sequence"] = loading.use_tree_attention(model, arguments.device)
        progress = Progress(planned.loads, folder)
        shared = {
            "model": model,
            "args": arguments,
            "train_dataset": dataset,
            "eval_dataset": dataset if held else None,  # the planned batches choose the rows
            "processing_class": processor,
            "peft_config": lora,
            "callbacks": [progress, *early_stopping.callbacks(own), *record.callbacks()],
            "planned": planned.mine,
            "validation": planned.validation,
            "part_rates": rates,
        }
        of_rows = [depends_on[name] for name in ("data", "images", "base_model")]
        key = files.fingerprint([*of_rows, pixels.settings(), str(model.dtype), own.lora.quantize])
        set_seed(settings.seed)  # a new adapter is the same, however the model was loaded
        runner = task.stage.build(Inputs(collator, shared, planned.single_pass, key))
        runner.remove_callback(PrinterCallback)  # Progress says it
        if runner.is_world_process_zero():
            device = str(runner.args.device)
            for line in summary.lines(runner.model, own, planned, rates, device, runner.args.world_size):
                logger.info(line)
        outcome = running.train(runner, resume_from, progress)
        metrics = {
            "stage": task.stage.name,
            "run": str(task.run),
            "method": own.method,
            "base_model": str(task.base_model),
            "train_rows": planned.rows,
            **outcome,
            "micro_batch_tokens": own.micro_batch_tokens,  # less than configured after oom_retries
            "fingerprint": files.fingerprint(depends_on),
        }
        trained = task.layout.trained(task.stage.name, task.run)
        running.save(runner, processor, trained, folder, metrics)
        record.metrics({key: value for key, value in metrics.items() if key != "curve"})
        record.artifact(trained / "metrics.json")
    return metrics


def _prepared(folder: Path, depends_on: dict, arguments: TrainingArguments) -> Path | None:
    """The checkpoint to resume from, if any: one process looks, and all take what it has found."""
    found = [checkpoints.prepare(folder, depends_on) if arguments.process_index == 0 else None]
    return broadcast_object_list(found)[0]


def _rows(task: Task, dialogue: Dialogue) -> tuple[Dataset, list[Row], list[int]]:
    """All rows, what each costs, and which of them are validated on instead of trained on."""
    own, seed = task.own, task.settings.seed
    dataset = task.stage.read_rows(task.data, dialogue)
    held: list[int] = []
    if own.validation_steps and task.validation_data:
        others = task.stage.read_rows(task.validation_data, dialogue)
        dataset, held = held_out.add_rows(dataset, others, own.validation_rows, seed)
    costs = rows.costs(dataset, dialogue, task.settings.data.max_tokens)
    if own.validation_steps and not task.validation_data:
        held = held_out.set_aside([row.image for row in costs], own.validation_rows, seed)
    return dataset, costs, held


def _vision_features(
    settings: Training,
    layout: Layout,
    arguments: TrainingArguments,
    model,
    pixels: Pixels,
    digests: Mapping[str, str],
) -> features.FeatureStore | None:
    """The features of the images that `digests` names, made where they are missing; None where they cannot be used."""
    backbone = loading.backbone(model)
    # All processes put the tower together, one of them uses it.
    with strategies.whole(backbone.visual, arguments.device), arguments.main_process_first(local=False):
        key = features.store_key(backbone, pixels)
        store = features.FeatureStore(layout.root / "features", key, digests)
        if arguments.process_index == 0:
            store.fill(backbone, pixels, list(digests), int(settings.vision_cache_gb * 2**30))
    if settings.strategy in strategies.SHARDS_WEIGHTS and not store.holds(list(digests)):
        logger.info(
            "vision features are computed each time: %s divides the tower, and some are missing",
            settings.strategy,
        )
        return None
    return store
