"""Answers of a model to records, in batches."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from workflow_scripts.datasets.records import Record
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.models.formats import CLOSING_TAGS
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.pixels import Pixels, batch

if TYPE_CHECKING:
    from workflow_scripts.models.loading import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """What the model wrote; truncated when it did not stop by itself.

    The token that it stopped at is kept where it belongs to the answer's form, as `</answer>` does, and dropped
    where it only ends the turn.
    """

    text: str
    truncated: bool


@dataclass
class Generator:
    """A model with the processor and the dialogue that it is asked through."""

    model: "Model"
    processor: Processor
    dialogue: Dialogue
    batch_size: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        configured = self.model.generation_config.eos_token_id
        stops = {configured} if isinstance(configured, int) else set(configured or [])
        words = self.processor.tokenizer
        stops |= {
            words.eos_token_id,
            words.convert_tokens_to_ids(VERSIONS[self.dialogue.model_version].stop_token),
        }
        self.stops = sorted(stops)
        self.kept_stops = {token for token in self.stops if words.decode([token]) in CLOSING_TAGS}

    def answer(
        self,
        records: Sequence[Record],
        folder: Path,
        blank: bool = False,
        temperature: float | None = None,
        samples: int = 1,
    ) -> list[list[Generation]]:
        """`samples` answers to the last question of each record, whose image paths are relative to `folder`.

        Greedy without a `temperature`. With `blank`, images are replaced by grey ones.
        """
        pixels = Pixels(self.processor.image_processor, blank)
        rows = [self._row(record, folder) for record in records]
        # Rows of one image lie together, so that it is processed once; similar lengths waste little padding.
        order = sorted(range(len(rows)), key=lambda index: (rows[index][1], len(rows[index][0])))
        results: list[list[Generation]] = [[] for _ in rows]
        for chunk in _progress(
            [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        ):
            answers = self._generate([rows[index] for index in chunk], pixels, temperature, samples)
            for position, index in enumerate(chunk):
                results[index] = answers[position * samples : (position + 1) * samples]
        return results

    def _row(self, record: Record, folder: Path) -> tuple[list[int], list[str]]:
        messages = record["messages"]
        if messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        return self.dialogue.tokens(self.dialogue.prompt(messages)), image_paths(record["images"], folder)

    @torch.inference_mode()
    def _generate(
        self,
        rows: list[tuple[list[int], list[str]]],
        pixels: Pixels,
        temperature: float | None,
        samples: int,
    ) -> list[Generation]:
        inputs = batch(rows, self.processor, pixels)
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        )
        model: Any = self.model  # transformers' own types of `generate` take none of its models
        written: torch.Tensor = model.generate(  # [rows · samples, prompt and answer]
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            **({"do_sample": False, "temperature": None, "top_p": None, "top_k": None} | sampling),
            num_return_sequences=samples,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.stops,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        return [self._decode(row) for row in written[:, inputs["input_ids"].shape[1] :].tolist()]

    def _decode(self, ids: list[int]) -> Generation:
        stopped = next((position for position, token in enumerate(ids) if token in self.stops), None)
        kept = ids if stopped is None else ids[: stopped + (ids[stopped] in self.kept_stops)]
        return Generation(self.processor.tokenizer.decode(kept), truncated=stopped is None)


def _progress(chunks: list[list[int]]) -> Iterable[list[int]]:
    """A bar in a terminal, nothing elsewhere."""
    return tqdm(chunks, unit="batch", disable=None, leave=False)
