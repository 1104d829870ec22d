"""TRL's trainers on the shared-prefix engine: their losses, metrics and options are stock."""

import math
import signal
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers.trainer_utils import rotate_checkpoints

from workflow_scripts.base.errors import STOPPING, UserError
from workflow_scripts.training import checkpoints, memory, parts


class PlannedBatches:
    """A trainer whose batches are planned beforehand: this process's lists of row numbers, for the whole run.

    `validation` are those of a validation. It stops at a loss that is not finite, names the batch that did not fit
    into memory, and its checkpoints are known to be whole.
    """

    def __init__(
        self, *args, planned: list[list[int]], validation: Sequence[list[int]] = (), **kwargs
    ) -> None:
        self.planned, self.validation = planned, validation
        self._of_step: list[list[int]] = []
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """The planned batches in their order; skipping some on resumption decodes nothing."""
        return self.loader(self.train_dataset, self.planned)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """The batches of a validation, whose rows lie in the same dataset as those that are trained on."""
        self._to_validate = iter(self.validation)
        return self.loader(self.train_dataset, self.validation)

    def loader(self, dataset: Dataset, batches: Sequence[list[int]]) -> DataLoader:
        """`dataset` in `batches`, made in workers where there are any."""
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=_outlive_signals,
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        first = self.state.global_step * self.args.gradient_accumulation_steps
        self._of_step = self.planned[first : first + num_batches]
        self._to_come = iter(self._of_step)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """One forward and backward pass; a loss that is not finite is a UserError before it reaches the weights."""
        batch, step = next(self._to_come), self.state.global_step + 1
        with memory.of_batch(batch, step):
            loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise self._not_finite(f"the loss is {float(loss)}", step, batch)
        return loss

    def prediction_step(self, *args, **kwargs) -> tuple:
        """One forward pass of a validation."""
        with memory.of_batch(next(self._to_validate), self.state.global_step):
            return super().prediction_step(*args, **kwargs)

    def _get_grad_norm(self, model, grad_norm=None):
        """A finite loss may have a gradient that is not; the optimiser's step comes after, or a checkpoint at least."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(norm):
            rows = list(chain(*self._of_step))
            raise self._not_finite(f"the gradient's norm is {float(norm)}", self.state.global_step + 1, rows)
        return norm

    def _save_checkpoint(self, model, trial) -> None:
        """Save and seal a checkpoint, and only then remove those that it takes the place of."""
        trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        if not all(parameter.isfinite().all() for parameter in trained):
            rows = list(chain(*self._of_step))
            raise self._not_finite("weights are not finite", self.state.global_step, rows)
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has written its random state
        if self.args.should_save:
            checkpoints.seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
            rotate_checkpoints(self.args.output_dir, checkpoints.KEPT, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _not_finite(self, what: str, step: int, rows: list[int]) -> UserError:
        kept = checkpoints.newest(Path(self.args.output_dir))
        return UserError(
            f"{what} at step {step}, in the rows {', '.join(self.train_dataset[rows]['id'])}; the last good checkpoint "
            f"is {kept or 'none yet'}; look at these rows, lower the learning rate, or train in fp32 (precision)"
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self._is_whole_model:
            self._load_whole(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._is_whole_model:
            self._load_whole(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    @property
    def _is_whole_model(self) -> bool:
        return not (isinstance(self.model, PeftModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _load_whole(self, checkpoint: str) -> None:
        """transformers 5.23 saves whole models in the hub's layout but loads them as if it were the model's own.

        The experts of an MoE would stay as they were.
        """
        kept = type(self.model).from_pretrained(checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(kept.state_dict())


def _outlive_signals(worker: int) -> None:
    """A scheduler signals every process of a job; the trainer still needs this one for its last step."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class PartRates:
    """A trainer with learning rates of their own for some of `parts.PARTS`; the rest has the main one."""

    def __init__(self, *args, part_rates: Mapping[str, float] = MappingProxyType({}), **kwargs) -> None:
        self.part_rates = part_rates
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser that Trainer makes, over `parameter_groups`."""
        model = self.model if model is None else model
        if self.optimizer is None and self.part_rates:
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(
                model, self.get_decay_parameter_names(model), self.args.weight_decay, self.part_rates
            )
            self.optimizer_cls_and_kwargs = optimizer, {**options, "params": groups}
        return super().create_optimizer(model)


def parameter_groups(
    model: torch.nn.Module, decayed: Collection[str], weight_decay: float, rates: Mapping[str, float]
) -> list[dict]:
    """The trainable parameters by part, those whose names are in `decayed` apart; language model first.

    The trainer logs the rate of the first group. A part that is not in `rates` has the optimiser's.
    """
    members: dict[tuple[str, bool], list] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[parts.part(name), name in decayed].append(parameter)
    return [
        {
            "params": members[part, decays],
            "weight_decay": weight_decay if decays else 0.0,
            **({"lr": rates[part]} if part in rates else {}),
        }
        for part in parts.PARTS
        for decays in (True, False)
        if members[part, decays]
    ]
