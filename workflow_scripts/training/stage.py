"""What sft and dpo have in common: resume, load, train, write, record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, Trainer

from workflow_scripts import config, files, tracking
from workflow_scripts.config import Training
from workflow_scripts.errors import UserError
from workflow_scripts.models import loading, processors
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.paths import Layout, Run
from workflow_scripts.training import checkpoints, features, launch, memory, rows, trainer
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
) -> dict:
    """Train `base_model` on the rows of `data` with the trainer that `build` makes, into `results/{stage}/{run}/`.

    One process that runs out of memory tries again here where `oom_retries` allow; of several, which wait for
    each other by then, all end, and the next start takes the smaller budget.
    """
    while True:
        try:
            return _try_once(stage, settings, layout, run, base_model, data, read_rows, build)
        except memory.OutOfMemory as error:
            smaller = memory.halve(error.settings, layout.checkpoints(stage, run))
            if smaller is None:
                raise
            again = f"{error}; starting over with {stage}.micro_batch_tokens = {smaller}"
            if PartialState().num_processes > 1:
                raise UserError(again) from error
            logger.warning("%s", again)
        loading.free_memory()


def _try_once(stage, settings, layout, run, base_model, data, read_rows, build) -> dict:
    own: Training = getattr(settings, stage)
    folder = layout.checkpoints(stage, run)
    depends_on = {
        "settings": config.stage_settings(settings, stage),
        "data": files.sha256(data),
        "base_model": [str(base_model), loading.fingerprint(base_model)],
    }
    device, _ = loading.device_and_dtype(own.gpus, own.precision)
    main_first = PartialState(cpu=device.type == "cpu").main_process_first
    with main_first():
        # Another number of processes or strategy comes to the same result, by other steps.
        processes = {"gpus": PartialState().num_processes, "strategy": own.strategy}
        resume_from = checkpoints.prepare(folder, {**depends_on, **processes})
    own = memory.within_budget(own, folder)

    processor = processors.load(base_model, VERSIONS[run.model_version], settings.data.max_image_side)
    dialogue = Dialogue(processor, run.model_version, run.mode)
    dataset = read_rows(data, dialogue)
    costs = rows.costs(dataset, dialogue, settings.data.max_tokens)
    planned = trainer.planned(own, costs, settings.seed, equal=stage == "dpo")
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
    progress = Progress(own.batch_size, folder)
    with tracking.stage(settings, layout, run, stage, depends_on["settings"]) as record:
        arguments = trainer.arguments(own, folder, settings.seed, planned)
        shared = {
            "model": model,
            "train_dataset": dataset,
            "processing_class": processor,
            "peft_config": lora,
            "callbacks": [progress, *record.callbacks()],
            "planned": planned.mine,
        }
        key = files.fingerprint(
            [depends_on["data"], depends_on["base_model"], pixels.settings(), str(model.dtype)]
        )
        runner = build(Inputs(own, collator, arguments, shared, planned.single_pass, key))
        runner.remove_callback(PrinterCallback)  # Progress says it
        try:
            outcome = trainer.train(runner, resume_from, progress)
        except torch.OutOfMemoryError as error:
            step, side = runner.state.global_step + 1, settings.data.max_image_side
            raise memory.OutOfMemory(stage, own, step, runner.batch, costs, side) from error
        metrics = {
            "stage": stage,
            "run": str(run),
            "method": own.method,
            "base_model": str(base_model),
            **outcome,
            "micro_batch_tokens": own.micro_batch_tokens,  # less than configured after oom_retries
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
