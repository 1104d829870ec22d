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
from workflow_scripts.training import checkpoints, features, rows, strategies, trainer
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
) -> dict:
    """Train `base_model` on the rows of `data` with the trainer that `build` makes, into `results/{stage}/{run}/`.

    `configure` makes the trainer's arguments, from the stage's settings and what the stages have in common.
    """
    own: Training = getattr(settings, stage)
    folder = layout.checkpoints(stage, run)
    depends_on = {
        "settings": config.stage_settings(settings, stage),
        "data": files.sha256(data),
        "base_model": [str(base_model), loading.fingerprint(base_model)],
    }
    processor = processors.load(base_model, VERSIONS[run.model_version], settings.data.max_image_side)
    dialogue = Dialogue(processor, run.model_version, run.mode)
    dataset = read_rows(data, dialogue)
    planned = trainer.planned(
        own, rows.costs(dataset, dialogue, settings.data.max_tokens), settings.seed, equal=stage == "dpo"
    )
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
    progress = Progress(own.batch_size, folder)
    with tracking.stage(settings, layout, run, stage, depends_on["settings"]) as record:
        shared = {
            "model": model,
            "args": arguments,
            "train_dataset": dataset,
            "processing_class": processor,
            "peft_config": lora,
            "callbacks": [progress, *record.callbacks()],
            "planned": planned.mine,
        }
        key = files.fingerprint(
            [depends_on["data"], depends_on["base_model"], pixels.settings(), str(model.dtype)]
        )
        set_seed(settings.seed)  # a new adapter is the same, however the model was loaded
        runner = build(Inputs(collator, shared, planned.single_pass, key))
        runner.remove_callback(PrinterCallback)  # Progress says it
        outcome = trainer.train(runner, resume_from, progress)
        metrics = {
            "stage": stage,
            "run": str(run),
            "method": own.method,
            "base_model": str(base_model),
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
