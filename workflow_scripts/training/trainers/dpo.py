"""Direct preference optimisation: TRL's DPOTrainer over trees of pairs."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, concatenate_datasets
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from trl import DPOConfig, DPOTrainer
from trl.models import prepare_deepspeed

from workflow_scripts.base import files
from workflow_scripts.configuration.settings import Dpo
from workflow_scripts.models import loading
from workflow_scripts.training import arguments, memory, strategies
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import REFERENCE_COLUMNS, PreferenceCollator
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.model import Start
from workflow_scripts.training.trainers.base import PartRates, PlannedBatches, rows_of
from workflow_scripts.training.trainers.objective import Materials, Objective

logger = logging.getLogger(__name__)

KEPT_BATCHES = 20  # of the reference's pass, after which what it has told is kept
DIGEST = "digest"  # of what a file of log-probabilities holds, in its metadata


class SharedPrefixDPOTrainer(PlannedBatches, PartRates, DPOTrainer):
    """DPOTrainer over trees of pairs, with the reference's log-probabilities from the file `reference`.

    The file holds ref_chosen_logps and ref_rejected_logps, one value a pair in the order of the dataset, NaN where it is
    still to be asked. One pass of the untrained policy makes it, and goes on with it after a kill; `passes` are this
    process's batches of that pass.
    """

    def __init__(self, *args: Any, reference: Path, passes: list[list[int]], **kwargs: Any) -> None:
        self.reference, self.passes = reference, passes
        super().__init__(*args, **kwargs)
        if not self.precompute_ref_logps:  # `precomputes` left it to us
            self.precompute_ref_logps = True
            self.train_dataset = self._precompute_ref_logps(self.train_dataset, "train", 0)

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        """The rows are tokens already; TRL would look for texts."""
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Under DeepSpeed the trainer rounds every number to the model's type; the reference's stay as they were kept."""
        kept = {name: inputs[name].to(self.args.device) for name in REFERENCE_COLUMNS if name in inputs}
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return prepared | kept

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """TRL's own pass goes pair by pair and keeps nothing for the next run."""
        for model in filter(None, (self.model, self.ref_model)):  # the latter under FSDP alone
            share_prefixes(loading.backbone(model))
        values = self._known_reference(len(dataset))
        if _unknown(values).any():
            self._ask_reference(dataset, values)
        columns = {name: values[name].tolist() for name in REFERENCE_COLUMNS}
        return concatenate_datasets([dataset, Dataset.from_dict(columns)], axis=1)

    def _known_reference(self, pairs: int) -> dict[str, torch.Tensor]:
        """What the main process has read of the file, for all of them: another one's disk may be late."""
        kept = [kept_reference(self.reference) if self.accelerator.is_main_process else None]
        (known,) = broadcast_object_list(kept)
        return known or {name: torch.full((pairs,), torch.nan) for name in REFERENCE_COLUMNS}

    def _ask_reference(self, dataset: Dataset, values: dict[str, torch.Tensor]) -> None:
        """Fill in what is unknown of `values`, each [pairs], and keep it as it comes."""
        model = self.ref_model or self.model
        if self.is_fsdp_enabled and self.ref_model is None:
            strategies.fetch(model, self.accelerator.device)  # FSDP takes it there only when training starts
        if self.is_deepspeed_enabled:
            model = self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
        unknown = _unknown(values)
        left = [batch for batch in self.passes if unknown[batch].any()]
        # A batch takes all processes: one that has fewer asks some again.
        left += self.passes[: max(gather_object([len(left)])) - len(left)]
        found: list[tuple[int, float, float]] = []
        bar = tqdm(total=len(left), unit="batch", desc="reference", disable=None, leave=False)
        for number, batch in enumerate(self.loader(dataset, left), 1):
            with memory.of_batch(rows_of(batch), step=0):
                inputs = self._prepare_inputs(batch)
                # Of chosen and rejected, each [pairs].
                sides = self.compute_ref_log_probs(model, inputs)  # type: ignore[no-untyped-call]
            bar.update()
            found += zip(rows_of(batch), *(side.tolist() for side in sides), strict=True)
            if number % KEPT_BATCHES == 0 or number == len(left):
                self._keep_reference(values, found)
                found.clear()

    def _keep_reference(self, values: dict[str, torch.Tensor], found: list[tuple[int, float, float]]) -> None:
        """Take into `values` what all processes have found: (row, chosen, rejected) of some pairs each."""
        for row, *sides in gather_object(found):
            for name, value in zip(REFERENCE_COLUMNS, sides, strict=True):
                values[name][row] = value
        if self.accelerator.is_main_process:
            save_reference(self.reference, values)


def save_reference(path: Path, values: dict[str, torch.Tensor]) -> None:
    """Keep log-probabilities, by REFERENCE_COLUMNS each [pairs]."""
    with files.replacing(path) as temporary:
        save_file(values, temporary, metadata={DIGEST: _digest(values)})


def kept_reference(path: Path) -> dict[str, torch.Tensor] | None:
    """The log-probabilities at `path`; None where there are none, or where they have been damaged since."""
    try:
        with safe_open(path, "pt") as opened:
            values = {name: opened.get_tensor(name) for name in REFERENCE_COLUMNS}
            if (opened.metadata() or {}).get(DIGEST) == _digest(values):
                return values
    except FileNotFoundError:
        return None
    except SafetensorError:
        pass
    logger.warning("%s is damaged, or of an earlier version; the reference is asked again", path)
    return None


def _unknown(values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Whether a pair is still to be asked, [pairs]."""
    return torch.stack([values[name].isnan() for name in REFERENCE_COLUMNS]).any(0)


def _digest(values: dict[str, torch.Tensor]) -> str:
    return files.fingerprint([values[name].tolist() for name in REFERENCE_COLUMNS])


def precomputes(method: str) -> bool:
    """Whether TRL is to ask for the reference's log-probabilities while it builds the trainer, by the way of training.

    TRL 1.16 then hashes all weights on the CPU, for a file that is not ours: 75 s of 9B. An adapter is its own
    reference, so the trainer asks by itself; for full training TRL would otherwise load a second model.
    """
    return method == "full"


def objective(references: Path) -> Objective[Dpo]:
    """What DPO does by itself; the reference's log-probabilities are kept in the folder `references`."""
    return Objective("dpo", True, rows.preference_rows, _arguments, partial(build, references))


def _arguments(settings: Dpo, start: Start, folder: Path, seed: int, schedule: Schedule) -> DPOConfig:
    return DPOConfig(
        **arguments.shared(settings, start, folder, seed, schedule) | settings.trainer,
        beta=settings.beta,
        loss_type=list(settings.loss),
        loss_weights=list(settings.loss.values()),
        precompute_ref_log_probs=precomputes(settings.method),
    )


def build(references: Path, made_of: Materials) -> SharedPrefixDPOTrainer:
    """The trainer that is `made_of` these."""
    return SharedPrefixDPOTrainer(
        model=made_of.model,
        args=made_of.arguments,
        data_collator=PreferenceCollator(
            made_of.processor, made_of.pixels, made_of.features, made_of.one_sequence
        ),
        train_dataset=made_of.dataset,
        eval_dataset=made_of.dataset if made_of.validates else None,  # the schedule chooses the rows
        processing_class=made_of.processor,
        peft_config=made_of.lora,
        callbacks=made_of.callbacks,
        planned=made_of.schedule.mine,
        validation=made_of.schedule.validation,
        part_rates=made_of.part_rates,
        reference=references / f"{made_of.reference_key}.safetensors",
        passes=made_of.schedule.single_pass,
    )
