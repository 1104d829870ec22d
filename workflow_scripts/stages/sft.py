"""Supervised fine-tuning of a model on the train records: `results/sft/{run}/`."""

from pathlib import Path

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Sft


def stage(settings: Config, layout: Layout, run: Run, base_model: Path) -> dict:
    """Train and write the model or adapter of `run`; returns its metrics."""
    from workflow_scripts.training import run as training
    from workflow_scripts.training.data import rows

    train, validation = (layout.split(run, split) for split in ("train", "validation"))
    sft = training.Stage("sft", rows.sft_rows, _arguments, _trainer)
    return training.train(training.Task(sft, settings, layout, run, base_model, train, validation))


def _arguments(settings: Sft, shared: dict):
    from trl import SFTConfig

    # The rows are tokens already.
    return SFTConfig(**shared, dataset_kwargs={"skip_prepare_dataset": True})


def _trainer(inputs):
    from workflow_scripts.training.data.collators import SftCollator
    from workflow_scripts.training.trainers.base import SharedPrefixSFTTrainer

    return SharedPrefixSFTTrainer(
        data_collator=SftCollator(**inputs.collator),
        **inputs.shared,
    )
