"""Supervised fine-tuning: TRL's SFTTrainer over trees of rows."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from workflow_scripts.configuration.settings import LossWeights, Sft
from workflow_scripts.models import loading
from workflow_scripts.training import arguments
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import IGNORED, SftCollator
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.model import Start
from workflow_scripts.training.trainers.base import PartRates, PlannedBatches
from workflow_scripts.training.trainers.objective import Materials, Objective


class SharedPrefixSFTTrainer(PlannedBatches, PartRates, SFTTrainer):
    """SFTTrainer over trees of rows. A token of a thought counts `thought_weight` times one of an answer.

    The loss is the weighted mean over the tokens of an optimiser step, on all processes; TRL's own at a weight of 1.
    """

    def __init__(self, *args: Any, thought_weight: float = 1.0, **kwargs: Any) -> None:
        self.thought_weight = thought_weight
        super().__init__(*args, **kwargs)
        share_prefixes(loading.backbone(self.model))
        # Glm4v declares that its own loss cannot count tokens over accumulation steps; TRL's, which is used, can.
        self.model_accepts_loss_kwargs = True

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        """The sum of the weights of an optimiser step: Trainer's count over all processes, thoughts by their weight."""
        tokens: Any = super()._get_num_items_in_batch(batch_samples, device)
        answers: Any = super()._get_num_items_in_batch(
            [
                {"labels": batch["labels"].masked_fill(batch["thought_mask"], IGNORED)}
                for batch in batch_samples
            ],
            device,
        )
        return None if tokens is None else answers + self.thought_weight * (tokens - answers)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """TRL's loss of weighted log-probabilities; its metrics are those of the tokens."""
        thought = inputs["thought_mask"][:, 1:]  # as labels are shifted
        weights = torch.where(thought, self.thought_weight, 1.0)  # [rows, longest completion]
        if num_items_in_batch is None:  # a validation, where TRL divides by the number of tokens
            kept = inputs["labels"][:, 1:] != IGNORED
            weights = weights * kept.sum() / (weights * kept).sum()

        def weighted(**named: Any) -> Any:
            outputs = model(**named)
            return replace(outputs, log_probs=outputs.log_probs * weights)

        unmasked = {name: value for name, value in inputs.items() if name != "thought_mask"}
        return super().compute_loss(  # type: ignore[no-untyped-call]
            weighted, unmasked, return_outputs, num_items_in_batch
        )


def objective(weights: LossWeights) -> Objective[Sft]:
    """What SFT does by itself, with the loss weighted by `weights`."""
    return Objective("sft", False, rows.sft_rows, _arguments, partial(build, weights))


def _arguments(settings: Sft, start: Start, folder: Path, seed: int, schedule: Schedule) -> SFTConfig:
    # The rows are tokens already.
    return SFTConfig(
        **arguments.shared(settings, start, folder, seed, schedule) | settings.trainer,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def build(
    weights: LossWeights, made_of: Materials, trainer: type[SharedPrefixSFTTrainer] = SharedPrefixSFTTrainer
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
        thought_weight=weights.thought / weights.answer,
    )
