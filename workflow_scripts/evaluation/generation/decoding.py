"""The loop that writes answers: rows come in where there is room for them, and leave when they have ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from workflow_scripts.evaluation.generation import sampling
from workflow_scripts.evaluation.generation.cache import Batch, joined
from workflow_scripts.evaluation.generation.prompts import Prompt
from workflow_scripts.evaluation.generation.queue import Queue, Room, Started
from workflow_scripts.evaluation.generation.stopping import AnswerLimits, GrowingAnswer

if TYPE_CHECKING:
    from workflow_scripts.models.loading import Model

# New rows wait until this share of the token budget is free: they take passes of their own.
FREE = 0.25
# Rows that have ended leave together when they are this share of the batch, or more: the others are copied then.
LEAVING = 0.125


@dataclass(frozen=True)
class Request:
    """What is written to each question: greedily without a `temperature`."""

    limits: AnswerLimits
    budget: int
    temperature: float | None
    samples: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One answer in the running batch; `columns` is the length of its prompt there."""

    prompt: Prompt
    sample: int
    columns: int
    answer: GrowingAnswer
    chance: Random


class Running:
    """The rows that are being written."""

    def __init__(self, model: "Model", request: Request) -> None:
        self._model = model
        self._request = request
        self._batch: Batch | None = None
        self.rows: list[Row] = []

    @property
    def room(self) -> Room:
        """What may come in."""
        longest = max((row.columns for row in self.rows), default=0)
        request = self._request
        return Room(request.budget, len(self.rows), longest, request.limits.tokens, request.samples)

    def add(self, started: Started) -> None:
        """Let the rows of started questions come in."""
        self.rows += [
            self._row(prompt, sample, started.batch.columns)
            for prompt in started.prompts
            for sample in range(self._request.samples)
        ]
        self._batch = joined(self._batch, started.batch) if self._batch else started.batch

    def _row(self, prompt: Prompt, sample: int, columns: int) -> Row:
        limits, seed = self._request.limits, self._request.seed
        answer = GrowingAnswer(limits, limits.thought.is_open(prompt.ids))
        return Row(prompt, sample, columns, answer, sampling.chance(seed, prompt.key, sample))

    def step(self) -> list[Row]:
        """Write a token of each row; returns the rows that end with it.

        Those that have ended leave when they are many enough to be worth copying the others.
        """
        assert self._batch is not None
        running = [row for row in self.rows if not row.answer.ended]
        tokens = self._chosen(self._batch.logits)
        for number, row in enumerate(self.rows):
            if not row.answer.ended:
                tokens[number] = row.answer.take(tokens[number])
        ended = [row for row in running if row.answer.ended]
        staying = [number for number, row in enumerate(self.rows) if not row.answer.ended]
        if not staying:
            self.rows, self._batch = [], None
            return ended
        if len(staying) <= (1 - LEAVING) * len(self.rows):
            self._batch = self._batch.rows(staying)
            self.rows = [self.rows[number] for number in staying]
            tokens = [tokens[number] for number in staying]
        self._batch.write(self._model, tokens)
        return ended

    def _chosen(self, logits: torch.Tensor) -> list[int]:
        if not self._request.temperature:
            return sampling.likeliest(logits)
        return sampling.drawn(logits, self._request.temperature, [row.chance for row in self.rows])


def decode(queue: Queue, model: "Model", request: Request) -> Iterator[Row]:
    """Answer every question of `queue`; the rows come as they end."""
    running = Running(model, request)
    while queue or running.rows:
        if running.room.free >= FREE:
            while queue and (started := queue.take(running.room)):
                running.add(started)
        yield from running.step()
