"""What SFT and DPO do differently, and what a trainer of either is built from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback, TrainingArguments

from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data.features import FeatureStore
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.memory import Settings
from workflow_scripts.training.model import Start
from workflow_scripts.training.trainers.base import PlannedBatches


@dataclass(frozen=True)
class Materials:
    """Everything that a trainer is built from.

    `lora` configures a new adapter; None where the model has one already or trains whole. `validates` says whether the
    schedule holds rows to validate on. `reference_key` names what the log-probabilities of the model as it is depend on.
    """

    model: torch.nn.Module
    arguments: TrainingArguments
    dataset: Dataset
    schedule: Schedule
    processor: Any
    pixels: Pixels
    features: FeatureStore | None
    one_sequence: bool
    lora: LoraConfig | None
    part_rates: dict[str, float]
    reference_key: str
    validates: bool = False
    callbacks: list[TrainerCallback] = field(default_factory=list)


@dataclass(frozen=True)
class Objective(Generic[Settings]):
    """How rows are read, the trainer's arguments made and the trainer built, for the stage `name`.

    `arguments` takes the stage's settings, what it starts from, the folder of unfinished training, the seed and the
    schedule.
    """

    name: str
    equal_batches: bool
    read_rows: Callable[[Path, Dialogue], Dataset]
    arguments: Callable[[Settings, Start, Path, int, Schedule], TrainingArguments]
    build: Callable[[Materials], PlannedBatches]
