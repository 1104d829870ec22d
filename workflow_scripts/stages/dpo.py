"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

from functools import partial
from pathlib import Path

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Dpo


def stage(settings: Config, layout: Layout, run: Run, base_model: Path) -> dict:
    """Train and write the model or adapter of `run`; returns its metrics."""
    from workflow_scripts.training import run as training
    from workflow_scripts.training.data import rows

    data = layout.preferences(run)
    build = partial(_trainer, data.parent / f"{run}.reference")
    dpo = training.Stage("dpo", rows.preference_rows, _arguments, build)
    return training.train(training.Task(dpo, settings, layout, run, base_model, data))


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
    from workflow_scripts.training.data.collators import PreferenceCollator
    from workflow_scripts.training.trainers.base import SharedPrefixDPOTrainer

    return SharedPrefixDPOTrainer(
        reference=reference / f"{inputs.key}.safetensors",
        passes=inputs.passes,
        data_collator=PreferenceCollator(**inputs.collator),
        **inputs.shared,
    )
