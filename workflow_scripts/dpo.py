"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

import sys
from functools import partial
from pathlib import Path

from workflow_scripts import cli, config
from workflow_scripts.paths import Layout, Run
from workflow_scripts.settings import Dpo


def dpo(settings: config.Config, layout: Layout, run: Run, base_model: Path) -> dict:
    """Train and write the model or adapter of `run`; returns its metrics."""
    from workflow_scripts.training import rows, stage

    data = layout.preferences(run)
    build = partial(_trainer, data.parent / f"{run}.reference")
    dpo = stage.Stage("dpo", rows.preference_rows, _arguments, build)
    return stage.train(stage.Task(dpo, settings, layout, run, base_model, data))


def _arguments(settings: Dpo, shared: dict):
    from trl import DPOConfig

    return DPOConfig(
        **shared,
        beta=settings.beta,
        loss_type=list(settings.loss),
        loss_weights=list(settings.loss.values()),
        precompute_ref_log_probs=True,
    )


def _trainer(reference: Path, inputs):
    from workflow_scripts.training.collators import PreferenceCollator
    from workflow_scripts.training.trainers import SharedPrefixDPOTrainer

    return SharedPrefixDPOTrainer(
        reference=reference / f"{inputs.key}.safetensors",
        passes=inputs.passes,
        data_collator=PreferenceCollator(**inputs.collator),
        **inputs.shared,
    )


def main(arguments: list[str] | None = None) -> int:
    options = cli.training_options("dpo", __doc__, arguments)
    base_model = options.base_model or options.layout.trained("sft", options.run)
    from workflow_scripts.training import launch

    return launch.launch_or_run(
        "workflow_scripts.dpo",
        arguments,
        options.settings.dpo,
        options.layout.checkpoints("dpo", options.run),
        lambda: dpo(options.settings, options.layout, options.run, base_model),
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
