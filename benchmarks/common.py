"""What both trainings are measured on: the model, the dialogues and the order of the rows."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import SequentialSampler
from transformers import AutoModelForImageTextToText, set_seed

from workflow_scripts.base import files
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.datasets.records import Record
from workflow_scripts.models import adapters, loading, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data.features import FeatureStore, store_key

VERSION, MODE = "4.1v", "base"
IMAGES = 6
WORDS = (
    "is",
    "there",
    "a",
    "nodule",
    "left",
    "lung",
    "what",
    "organ",
    "shows",
    "image",
    "chest",
    "head",
    "kidney",
)
ROWS_PER_BATCH = 14  # at least; whole images

# Glm4v with six text layers and four of vision: small enough for two cores, and most of the time is still the
# language model's, as it is for the 9B.
SMALL_TEXT = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
SMALL_VISION = {"hidden_size": 96, "depth": 4, "num_heads": 4, "intermediate_size": 256}
# The shapes of GLM-4.1V-9B; weights are random.
LARGE_TEXT = {
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "vocab_size": 151552,
    "initializer_range": 0.02,
}
LARGE_LAYER_BYTES = 2 * (2 * 4096 * 4096 + 2 * 4096 * 256 + 3 * 4096 * 13696)
LARGE_VISION = {
    "hidden_size": 1536,
    "depth": 24,
    "num_heads": 12,
    "intermediate_size": 13696,
    "initializer_range": 0.02,
}
SHARED_MEMORY = 2**32  # bytes, that workers hand batches of pixels through


@dataclass
class Case:
    """Dialogues on some images of one size, and what trains on them."""

    folder: Path
    questions: int
    side: int
    processor: Processor
    records: list[Record]

    @property
    def dialogue(self) -> Dialogue:
        return Dialogue(self.processor, VERSION, MODE)

    @property
    def batch(self) -> int:
        """Rows of a batch: of as many whole images as make ROWS_PER_BATCH or little more."""
        return min(self.questions * -(-ROWS_PER_BATCH // self.questions), len(self.records))

    def pixels(self) -> Pixels:
        return Pixels(self.processor.image_processor)

    def image(self, record: Record) -> Image.Image:
        return Image.open(self.folder / record["images"][0])

    def write(self, name: str, records: Sequence[Mapping[str, object]]) -> Path:
        files.write_jsonl(self.folder / name, records)
        return self.folder / name


def case(folder: Path, questions: int, side: int, images: int = IMAGES) -> Case:
    """The same every time: smooth pictures, questions of four to ten words, answers of one to three."""
    chance = random.Random(f"{questions} {side}")
    write = VERSIONS[VERSION].answer_format(MODE).write
    records = []
    for number in range(images):
        name = f"{number}.jpg"
        noise = bytes(min(max(round(chance.gauss(128, 60 + number)), 0), 255) for _ in range(24 * 24))
        picture = Image.frombytes("L", (24, 24), noise).resize((side, side), Image.Resampling.BICUBIC)
        picture.convert("RGB").save(folder / name, quality=95)
        for question in range(questions):
            asked = " ".join(chance.choices(WORDS, k=chance.randint(4, 10)))
            answer = write(" ".join(chance.choices(WORDS, k=chance.randint(1, 3))))
            records.append(
                {
                    "id": f"{number}-{question}",
                    "images": [name],
                    "messages": [
                        {"role": "user", "content": f"<image>{asked}?"},
                        {"role": "assistant", "content": answer},
                    ],
                }
            )
    processor = standins.processor(VERSIONS[VERSION])
    area = 2 * side**2  # counts two frames
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    return Case(folder, questions, side, processor, records)


def model_config() -> Any:
    """Glm4v's, for the model of the benchmarks.

    On a GPU it has the shapes of GLM-4.1V-9B, with as many text layers as a quarter of the free memory holds in bf16.
    """
    on_gpu = torch.cuda.is_available()
    config: Any = standins.model_config(VERSIONS[VERSION])
    config.text_config.update(LARGE_TEXT if on_gpu else SMALL_TEXT)
    config.vision_config.update(LARGE_VISION if on_gpu else SMALL_VISION)
    text, vision = config.text_config, config.vision_config
    if on_gpu:
        text.num_hidden_layers = max(2, min(text.num_hidden_layers, _layers_that_fit()))
    text.head_dim = text.hidden_size // text.num_attention_heads
    half = text.head_dim // 4  # of the rotated dimensions, which are half of a head's
    text.rope_parameters["mrope_section"] = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    vision.out_hidden_size, vision.image_size = text.hidden_size, 336
    return config


def model(config: Any = None) -> Any:
    """A model of `config` (`model_config`) with random weights, the same every time; the vision tower is frozen."""
    set_seed(0)
    device, dtype = loading.device_and_dtype(1)
    with torch.device(device):
        made = AutoModelForImageTextToText.from_config(config or model_config(), dtype=dtype)
    for parameter in made.model.visual.parameters():
        parameter.requires_grad_(False)
    return made


@cache  # both trainings have the same model
def _layers_that_fit() -> int:
    free, _ = torch.cuda.mem_get_info()
    return free // 4 // LARGE_LAYER_BYTES


def adapter(trained, method: str):
    """peft's configuration for `--method lora`, None for full training."""
    return adapters.lora_config(trained, Lora(dropout=0.0)) if method == "lora" else None


def kept_features(folder: Path, trained, pixels: Pixels, dataset) -> FeatureStore:
    """The vision features of the images of `dataset`, as a training of ours keeps them."""
    store = FeatureStore(folder / "features", store_key(trained.model, pixels))
    store.fill(trained.model, pixels, [path for paths in dataset["image_paths"] for path in paths], 2**33)
    return store


class StockOrder:
    """Mixed into a stock trainer: rows in the order of the dataset, instead of at random."""

    train_dataset: Any

    def _get_train_sampler(self, dataset=None):
        return SequentialSampler(self.train_dataset)


def arguments(case: Case, folder: Path, epochs: int = 1) -> dict:
    """What SFTConfig and DPOConfig share."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": case.batch,
        "num_train_epochs": epochs,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "max_length": None,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "activation_checkpointing": on_gpu,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "remove_unused_columns": False,
        "router_aux_loss_coef": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 2 if on_gpu and _shared_memory() >= SHARED_MEMORY else 0,
    }


def _shared_memory() -> int:
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0


def in_order(case: Case) -> list[list[int]]:
    """The batches that stock makes."""
    rows = len(case.records)
    return [list(range(start, min(start + case.batch, rows))) for start in range(0, rows, case.batch)]


def unique_tokens(case: Case, collator, dataset) -> int:
    """Tokens of an epoch's trees, padding apart."""
    batches = (collator([dataset[index] for index in batch]) for batch in in_order(case))
    padding = case.processor.tokenizer.pad_token_id
    return sum(int((batch["tree"]["input_ids"] != padding).sum()) for batch in batches)
