"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

import sys
from functools import partial
from pathlib import Path

from workflow_scripts import cli, config
from workflow_scripts.paths import Layout, Run


def dpo(settings: config.Config, layout: Layout, run: Run, base_model: Path) -> dict:
    """Train and write the model or adapter of `run`; returns its metrics."""
    from workflow_scripts.training import rows, stage

    data = layout.preferences(run)
    reference = data.parent / f"{run}.reference"
    return stage.train_stage(
        "dpo", settings, layout, run, base_model, data, rows.preference_rows, partial(_trainer, reference)
    )


def _trainer(reference: Path, inputs):
    from trl import DPOConfig

    from workflow_scripts.training.collators import PreferenceCollator
    from workflow_scripts.training.trainers import SharedPrefixDPOTrainer

    loss = inputs.settings.loss
    return SharedPrefixDPOTrainer(
        args=DPOConfig(
            **inputs.arguments,
            beta=inputs.settings.beta,
            loss_type=list(loss),
            loss_weights=list(loss.values()),
            precompute_ref_log_probs=True,
        ),
        reference=reference / f"{inputs.key}.safetensors",
        passes=inputs.passes,
        data_collator=PreferenceCollator(**inputs.collator),
        **inputs.shared,
    )


def main(arguments: list[str] | None = None) -> int:
    options = cli.training_options("dpo", __doc__, arguments)
    base_model = options.base_model or options.layout.trained("sft", options.run)
    from workflow_scripts.training import stage

    return stage.launch_or_run(
        "workflow_scripts.dpo",
        arguments,
        options.settings.dpo.gpus,
        lambda: dpo(options.settings, options.layout, options.run, base_model),
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
