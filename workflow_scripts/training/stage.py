"""What sft and dpo have in common: resume, load, train, write, record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, Trainer

from workflow_scripts import config, files, tracking
from workflow_scripts.config import Training
from workflow_scripts.models import loading, processors
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.paths import Layout, Run
from workflow_scripts.training import checkpoints, features, launch, rows, summary, trainer, validation
from workflow_scripts.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """What a stage builds its trainer from: the arguments of its collator, its configuration and itself.

    `passes` are this process's batches of a single pass over the rows; `key` names what the reference's
    log-probabilities depend on.
    """

    settings: Training
    collator: dict
    arguments: dict
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
    build: Callable[[Inputs], Trainer],
    validation_data: Path | None = None,
) -> dict:
    """Train `base_model` on the rows of `data` with the trainer that `build` makes, into `results/{stage}/{run}/`.

    Where validation is asked for, it is on the rows of `validation_data`; without such a file on a part of `data`.
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
    device, _ = loading.device_and_dtype(own.gpus, own.precision)
    main_first = PartialState(cpu=device.type == "cpu").main_process_first
    with main_first():
        resume_from = checkpoints.prepare(folder, depends_on)

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
    model, lora = trainer.trainable_model(base_model, own, settings.seed)
    pixels = Pixels(processor.image_processor)
    with main_first():
        store = _vision_features(own, layout, model, pixels, dataset)
    collator = {
        "processor": processor,
        "pixels": pixels,
        "features": store,
        "one_sequence": loading.use_tree_attention(model),
    }
    progress = Progress(planned.loads, folder)
    with tracking.stage(settings, layout, run, stage, depends_on["settings"]) as record:
        arguments = trainer.arguments(own, folder, settings.seed, planned)
        shared = {
            "model": model,
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
        runner = build(Inputs(own, collator, arguments, shared, planned.single_pass, key))
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
    settings: Training, layout: Layout, model, pixels: Pixels, dataset: Dataset
) -> features.FeatureStore | None:
    """The features of the images of `dataset`, made where they are missing; None where the tower changes."""
    if not settings.vision_cache_gb or trainer.trains_vision(settings):
        return None
    backbone = loading.backbone(model)
    store = features.FeatureStore(layout.root / "features", features.store_key(backbone, pixels))
    images = [path for row_paths in dataset["image_paths"] for path in row_paths]
    store.fill(backbone, pixels, images, int(settings.vision_cache_gb * 2**30))
    return store


def launch_or_run(module: str, arguments: list[str], gpus: int, run: Callable[[], dict]) -> int:
    """Run here, or once per GPU in processes of their own; returns the exit status."""
    status = launch.relaunch(module, arguments, gpus)
    if status is None:
        metrics = run()
        logger.info(
            "%d steps in %.0f s, loss %.4f", metrics["steps"], metrics["seconds"], metrics["final_loss"]
        )
    return status or 0
