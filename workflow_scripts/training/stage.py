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
from workflow_scripts.training import checkpoints, launch, trainer
from workflow_scripts.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """What a stage builds its trainer from; `arguments` and `shared` are those that both trainers take."""

    settings: Training
    base_model: Path
    processor: object
    pixels: Pixels
    arguments: dict
    shared: dict


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
    """Train `base_model` on the rows of `data` with the trainer that `build` makes, into `results/{stage}/{run}/`."""
    own: Training = getattr(settings, stage)
    folder = layout.checkpoints(stage, run)
    depends_on = {
        "settings": config.stage_settings(settings, stage),
        "data": files.sha256(data),
        "base_model": [str(base_model), loading.fingerprint(base_model)],
    }
    device, _ = loading.device_and_dtype(own.gpus, own.precision)
    with PartialState(cpu=device.type == "cpu").main_process_first():
        resume_from = checkpoints.prepare(folder, depends_on)

    processor = processors.load(base_model, VERSIONS[run.model_version], settings.data.max_image_side)
    dataset = read_rows(data, Dialogue(processor, run.model_version, run.mode))
    model, lora = trainer.trainable_model(base_model, own, settings.seed)
    progress = Progress(own.batch_size, folder)
    with tracking.stage(settings, layout, run, stage, depends_on["settings"]) as record:
        shared = {
            "model": model,
            "train_dataset": dataset,
            "processing_class": processor,
            "peft_config": lora,
            "callbacks": [progress, *record.callbacks()],
        }
        arguments = trainer.arguments(own, folder, settings.seed, len(dataset))
        runner = build(
            Inputs(own, base_model, processor, Pixels(processor.image_processor), arguments, shared)
        )
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


def launch_or_run(module: str, arguments: list[str], gpus: int, run: Callable[[], dict]) -> int:
    """Run here, or once per GPU in processes of their own; returns the exit status."""
    status = launch.relaunch(module, arguments, gpus)
    if status is None:
        metrics = run()
        logger.info(
            "%d steps in %.0f s, loss %.4f", metrics["steps"], metrics["seconds"], metrics["final_loss"]
        )
    return status or 0
