"""Supervised fine-tuning of a model on the train records: `results/sft/{run}/`."""

import sys
from pathlib import Path

from workflow_scripts import cli, config
from workflow_scripts.paths import Layout, Run
from workflow_scripts.settings import Sft


def sft(settings: config.Config, layout: Layout, run: Run, base_model: Path) -> dict:
    """Train and write the model or adapter of `run`; returns its metrics."""
    from workflow_scripts.training import rows, stage

    train, validation = (layout.split(run, split) for split in ("train", "validation"))
    sft = stage.Stage("sft", rows.sft_rows, _arguments, _trainer)
    return stage.train(stage.Task(sft, settings, layout, run, base_model, train, validation))


def _arguments(settings: Sft, shared: dict):
    from trl import SFTConfig

    # The rows are tokens already.
    return SFTConfig(**shared, dataset_kwargs={"skip_prepare_dataset": True})


def _trainer(inputs):
    from workflow_scripts.training.collators import SftCollator
    from workflow_scripts.training.trainers import SharedPrefixSFTTrainer

    return SharedPrefixSFTTrainer(
        data_collator=SftCollator(**inputs.collator),
        **inputs.shared,
    )


def main(arguments: list[str] | None = None) -> int:
    options = cli.training_options("sft", __doc__, arguments)
    base_model = options.base_model or options.layout.model(options.run.model_version, options.run.mode)
    from workflow_scripts.training import launch

    return launch.launch_or_run(
        "workflow_scripts.sft",
        arguments,
        options.settings.sft,
        options.layout.checkpoints("sft", options.run),
        lambda: sft(options.settings, options.layout, options.run, base_model),
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
