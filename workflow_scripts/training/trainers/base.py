"""TRL's trainers on the shared-prefix engine: their losses, metrics and options are stock."""

import logging
import math
import signal
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from workflow_scripts.base.errors import STOPPING, UserError
from workflow_scripts.models import loading
from workflow_scripts.training import checkpoints, memory, parts, saving, strategies
from workflow_scripts.training.data.first_batch import BatchView
from workflow_scripts.training.engine import fused

logger = logging.getLogger(__name__)


class NumberedRows(torch.utils.data.Dataset[tuple[int, dict[str, Any]]]):
    """The rows of `dataset`, each with its number."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, dict[str, Any]]:
        return number, self.dataset[number]


@dataclass(frozen=True)
class NumberedBatches:
    """Batches by `collate` whose tree carries the numbers of their rows.

    There they reach the model, which ignores them: TRL hands on what it does not know of a batch's own entries.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        batch = self.collate([row for _, row in rows])
        batch["tree"]["rows"] = [number for number, _ in rows]
        return batch


def rows_of(batch: Mapping[str, Any]) -> list[int]:
    """The numbers of the rows that `batch` holds."""
    rows: list[int] = batch["tree"]["rows"]
    return rows


def keep_in_fp32(model: torch.nn.Module) -> None:
    """Hold what trains of `model` in fp32: bf16 loses most steps of a small learning rate.

    TRL 1.16 rounds the adapters of a model in 4 bits to bf16. DeepSpeed keeps copies in fp32 of its own.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()


class PlannedBatches(Trainer):
    """A trainer whose batches are planned beforehand: this process's lists of row numbers, for the whole run.

    `validation` are those of a validation. It stops at a loss that is not finite, names the batch that did not fit
    into memory, and its checkpoints are known to be whole.
    """

    model: Any  # Trainer lets these be None until it is built
    train_dataset: Any

    def __init__(
        self, *args: Any, planned: list[list[int]], validation: Sequence[list[int]] = (), **kwargs: Any
    ) -> None:
        self.planned, self.validation = planned, validation
        self._rows_of_step: list[list[int]] = []  # of each of its batches
        self._losses_of_step: list[torch.Tensor] = []  # of those that have run
        self._is_shown = False
        super().__init__(*args, **kwargs)
        if isinstance(self.model, PeftModel) and not self.is_deepspeed_enabled:
            keep_in_fp32(self.model)
        if self.args.device.type == "cuda" and not self._others_hold_weights:
            fused.fuse(self.model)
        if self.is_fsdp_enabled:
            strategies.gather_head(loading.with_head(self.model))

    @property
    def _others_hold_weights(self) -> bool:
        """Whether DeepSpeed or FSDP divide weights and cast them."""
        return bool(self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train under autocast without peft's casts of each input to the adapters' fp32.

        Autocast rounds to bf16 what an adapter is given: from bf16 to fp32 and back no bit changes.
        """
        casts_itself = self.args.bf16 and not self._others_hold_weights
        with disable_input_dtype_casting(self.model, active=casts_itself):
            return super().train(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: TRL would write one into each checkpoint, and the card of a model is its export's."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The planned batches in their order; skipping some on resumption decodes nothing."""
        return self.loader(self.train_dataset, self.planned)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[Any]:
        """The batches of a validation, whose rows lie in the same dataset as those that are trained on."""
        return self.loader(self.train_dataset, self.validation)

    def loader(self, dataset: Dataset, batches: Sequence[list[int]]) -> DataLoader[Any]:
        """`dataset` in `batches`, made in workers where there are any."""
        return DataLoader(
            NumberedRows(dataset),
            batch_sampler=batches,
            collate_fn=NumberedBatches(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=_outlive_signals,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int | None]:
        """The batches of an optimiser step, whose rows are noted for error messages."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._rows_of_step, self._losses_of_step = [rows_of(batch) for batch in batches], []
        return batches, items

    def _prepare_input(self, data: Any) -> Any:
        """Copy pinned tensors while the host goes on; transformers 5.23 waits for each."""
        if isinstance(data, torch.Tensor):
            data = data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass, whose loss is looked at before it reaches the weights."""
        self._show(inputs)
        with memory.of_batch(rows_of(inputs), self.state.global_step + 1):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses_of_step.append(loss)
        return loss

    def _show(self, inputs: Mapping[str, Any]) -> None:
        """Under --debug, log what the first batch of the first process is to the model."""
        if not self._is_shown and logger.isEnabledFor(logging.DEBUG) and self.is_world_process_zero():
            rows = [self.train_dataset[row] for row in rows_of(inputs)]
            for line in BatchView(inputs, rows, self.processing_class).lines():
                logger.debug("%s", line)
        self._is_shown = True

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """One forward pass of a validation."""
        with memory.of_batch(rows_of(inputs), self.state.global_step):
            return super().prediction_step(model, inputs, *args, **kwargs)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: float | None = None) -> float | None:
        """Refuse a loss that is not finite, or a gradient; the optimiser's step comes after, or a checkpoint at least.

        To look waits for the GPU, so it is done once for all passes of a step. A finite loss may have such a gradient.
        """
        norm: float | None = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        step = self.state.global_step + 1
        losses = torch.stack(self._losses_of_step).tolist()
        for loss, rows in zip(losses, self._rows_of_step, strict=True):
            if not math.isfinite(loss):
                raise self._not_finite(f"the loss is {loss}", step, rows)
        if norm is not None and not math.isfinite(norm):
            raise self._not_finite(f"the gradient's norm is {float(norm)}", step)
        return norm

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save and seal a checkpoint, and only then remove those that it takes the place of."""
        trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        if not all(parameter.isfinite().all() for parameter in trained):
            raise self._not_finite("weights are not finite", self.state.global_step)
        with saving.measured(self._folder, keeps=self.args.should_save):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # every process has written its random state
            if self.args.should_save:
                checkpoints.seal(self._folder / f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            rotate_checkpoints(str(self._folder), checkpoints.KEPT, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _not_finite(self, what: str, step: int, rows: list[int] | None = None) -> UserError:
        """The error that names these rows, or all of the step."""
        kept = checkpoints.newest(self._folder)
        rows = rows or [row for batch in self._rows_of_step for row in batch]
        return UserError(
            f"{what} at step {step}, in the rows {', '.join(self.train_dataset[rows]['id'])}; the last good checkpoint "
            f"is {kept or 'none yet'}; look at these rows, lower the learning rate, or train in fp32 (precision)"
        )

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
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

    @property
    def _folder(self) -> Path:
        return Path(str(self.args.output_dir))

    def _load_whole(self, checkpoint: str | None) -> None:
        """transformers 5.23 saves whole models in the hub's layout but loads them as if it were the model's own.

        The experts of an MoE would stay as they were.
        """
        kept = type(self.model).from_pretrained(checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(kept.state_dict())


def _outlive_signals(worker: int) -> None:
    """A scheduler signals every process of a job; the trainer still needs this one for its last step."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class PartRates(Trainer):
    """A trainer with learning rates of their own for some of `parts.PARTS`; the rest has the main one."""

    model: Any

    def __init__(
        self, *args: Any, part_rates: Mapping[str, float] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        self.part_rates = part_rates
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
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
) -> list[dict[str, Any]]:
    """The trainable parameters by part, those whose names are in `decayed` apart; language model first.

    The trainer logs the rate of the first group. A part that is not in `rates` has the optimiser's.
    """
    members: dict[tuple[str, bool], list[torch.nn.Parameter]] = defaultdict(list)
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
