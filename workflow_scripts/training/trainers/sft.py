"""Supervised fine-tuning: TRL's SFTTrainer over trees of rows."""

from trl import SFTTrainer

from workflow_scripts.models import loading
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.trainers.base import PartRates, PlannedBatches


class SharedPrefixSFTTrainer(PlannedBatches, PartRates, SFTTrainer):
    """SFTTrainer over trees of rows."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        share_prefixes(loading.backbone(self.model))
        # Glm4v declares that its own loss cannot count tokens over accumulation steps; TRL's, which is used, can.
        self.model_accepts_loss_kwargs = True
