"""What sft and dpo have in common: resume, load, train, write, record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from workflow_scripts import config, files, tracking
from workflow_scripts.config import Training
from workflow_scripts.models import loading, processors
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.paths import Layout, Run
from workflow_scripts.training import (
    checkpoints,
    features,
    rows,
    strategies,
    summary,
    trainer,
    validation,
)
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


def train_stage(
    stage: str,
    settings: config.Config,
    layout: Layout,
    run: Run,
    base_model: Path,
    data: Path,
    read_rows: Callable[[Path, Dialogue], Dataset],
    configure: Callable[[Training, dict], TrainingArguments],
    build: Callable[[Inputs], Trainer],
    validation_data: Path | None = None,
) -> dict:
    """Train `base_model` on the rows of `data` with the trainer that `build` makes, into `results/{stage}/{run}/`.

    `configure` makes the trainer's arguments, from the stage's settings and what the stages have in common. Where
    validation is asked for, it is on the rows of `validation_data`; without such a file on a part of `data`.
    """
    own: Training = getattr(settings, stage)
    rates = trainer.part_rates(own)
    folder = layout.checkpoints(stage, run)
    depends_on = {
        "settings": config.stage_settings(settings, stage),
        "data": files.sha256(data),
        "base_model": [str(base_model), loading.fingerprint(base_model)],
    }
    if own.validation_steps and validation_data:
        depends_on["validation_data"] = files.sha256(validation_data)
    processor = processors.load(base_model, VERSIONS[run.model_version], settings.data.max_image_side)
    dialogue = Dialogue(processor, run.model_version, run.mode)
    dataset = read_rows(data, dialogue)
    held: list[int] = []
    if own.validation_steps and validation_data:
        others = read_rows(validation_data, dialogue)
        dataset, held = validation.add_rows(dataset, others, own.validation_rows, settings.seed)
    costs = rows.costs(dataset, dialogue, settings.data.max_tokens)
    if own.validation_steps and not validation_data:
        held = validation.set_aside([row.image for row in costs], own.validation_rows, settings.seed)
    planned = trainer.planned(own, costs, settings.seed, equal=stage == "dpo", held=held)
    # Before the model: they say how it is to be loaded.
    arguments = configure(own, trainer.arguments(own, folder, settings.seed, planned))
    with arguments.main_process_first(local=False):
        resume_from = checkpoints.prepare(
            folder, depends_on | {"processes": [own.strategy, arguments.world_size]}
        )
    model, lora = trainer.trainable_model(base_model, own)
    pixels = Pixels(processor.image_processor)
    keeps_features = own.vision_cache_gb and not trainer.trains_vision(model, lora, own)
    collator = {
        "processor": processor,
        "pixels": pixels,
        "features": _vision_features(own, layout, arguments, model, pixels, dataset)
        if keeps_features
        else None,
        "one_sequence": loading.use_tree_attention(model, arguments.device),
    }
    progress = Progress(planned.loads, folder)
    with tracking.stage(settings, layout, run, stage, depends_on["settings"]) as record:
        shared = {
            "model": model,
            "args": arguments,
            "train_dataset": dataset,
            "eval_dataset": dataset if held else None,  # the planned batches choose the rows
            "processing_class": processor,
            "peft_config": lora,
            "callbacks": [progress, *validation.callbacks(own), *record.callbacks()],
            "planned": planned.mine,
            "validation": planned.validation,
            "part_rates": rates,
        }
        precision = [str(model.dtype), own.lora.quantize]
        key = files.fingerprint([depends_on["data"], depends_on["base_model"], pixels.settings(), precision])
        set_seed(settings.seed)  # a new adapter is the same, however the model was loaded
        runner = build(Inputs(collator, shared, planned.single_pass, key))
        runner.remove_callback(PrinterCallback)  # Progress says it
        if runner.is_world_process_zero():
            for line in summary.lines(
                runner.model, own, planned, str(runner.args.device), runner.args.world_size
            ):
                logger.info(line)
        outcome = trainer.train(runner, resume_from, progress)
        metrics = {
            "stage": stage,
            "run": str(run),
            "method": own.method,
            "base_model": str(base_model),
            "train_rows": planned.rows,
            **outcome,
            "fingerprint": files.fingerprint(depends_on),
        }
        trainer.save(runner, processor, layout.trained(stage, run), folder, metrics)
        record.metrics({key: value for key, value in metrics.items() if key != "curve"})
        record.artifact(layout.trained(stage, run) / "metrics.json")
    return metrics


def _vision_features(
    settings: Training, layout: Layout, arguments: TrainingArguments, model, pixels: Pixels, dataset: Dataset
) -> features.FeatureStore | None:
    """The features of the images of `dataset`, made where they are missing; None where they cannot be used."""
    backbone = loading.backbone(model)
    images = [path for row_paths in dataset["image_paths"] for path in row_paths]
    # All processes put the tower together, one of them uses it.
    with strategies.whole(backbone.visual, arguments.device), arguments.main_process_first(local=False):
        store = features.FeatureStore(layout.root / "features", features.store_key(backbone, pixels))
        store.fill(backbone, pixels, images, int(settings.vision_cache_gb * 2**30))
    if settings.strategy in strategies.SHARDS_WEIGHTS and not store.holds(images):
        logger.info(
            "vision features are computed each time: %s divides the tower, and some are missing",
            settings.strategy,
        )
        return None
    return store
