"""Supervised fine-tuning: TRL's SFTTrainer over trees of rows."""

from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from workflow_scripts.configuration.settings import Sft
from workflow_scripts.models import loading
from workflow_scripts.training import arguments
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.model import Start
from workflow_scripts.training.trainers.base import PartRates, PlannedBatches
from workflow_scripts.training.trainers.objective import Materials, Objective


class SharedPrefixSFTTrainer(PlannedBatches, PartRates, SFTTrainer):
    """SFTTrainer over trees of rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        share_prefixes(loading.backbone(self.model))
        # Glm4v declares that its own loss cannot count tokens over accumulation steps; TRL's, which is used, can.
        self.model_accepts_loss_kwargs = True


def objective() -> Objective[Sft]:
    """What SFT does by itself."""
    return Objective("sft", False, rows.sft_rows, _arguments, build)


def _arguments(settings: Sft, start: Start, folder: Path, seed: int, schedule: Schedule) -> SFTConfig:
    # The rows are tokens already.
    return SFTConfig(
        **arguments.shared(settings, start, folder, seed, schedule) | settings.trainer,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def build(
    made_of: Materials, trainer: type[SharedPrefixSFTTrainer] = SharedPrefixSFTTrainer
) -> SharedPrefixSFTTrainer:
    """The trainer that is `made_of` these."""
    return trainer(
        model=made_of.model,
        args=made_of.arguments,
        data_collator=SftCollator(made_of.processor, made_of.pixels, made_of.features, made_of.one_sequence),
        train_dataset=made_of.dataset,
        eval_dataset=made_of.dataset if made_of.validates else None,  # the schedule chooses the rows
        processing_class=made_of.processor,
        peft_config=made_of.lora,
        callbacks=made_of.callbacks,
        planned=made_of.schedule.mine,
        validation=made_of.schedule.validation,
        part_rates=made_of.part_rates,
    )
