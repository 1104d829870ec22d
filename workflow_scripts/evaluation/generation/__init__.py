"""Answers of a model to records: each image and common beginning of prompts runs once, for all that go on from it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """What the model wrote.

    truncated: it did not stop by itself, for length or repetition; forced: its thought was cut at the budget;
    repeated: it was stopped in an endless repetition; tokens: how many it generated, the one that it stopped at and
    those that closed its thought included. That stop token is in `text` where it belongs to the answer's form, as
    `</answer>` does, and not where it only ends the turn.
    """

    text: str
    truncated: bool
    tokens: int
    forced: bool = False
    repeated: bool = False
