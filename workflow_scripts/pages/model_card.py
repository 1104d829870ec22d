"""The card of an exported model: what it is, what it was trained on, what it scored, what it must not be used for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workflow_scripts.base.paths import Run
from workflow_scripts.evaluation import paper
from workflow_scripts.evaluation.table import Evaluation, tried, with_interval

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class TrainedOn:
    """A data set: its name in the configuration, where it is from, and its licence."""

    name: str
    place: str
    licence: str


@dataclass(frozen=True)
class Trained:
    """What is known of a run of this project: `metrics` of its `stage`, what validation and evaluation found."""

    run: Run
    stage: str
    sources: list[TrainedOn]
    evaluation: Evaluation
    validation: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def table(self) -> str:
        return paper.markdown([self.evaluation])

    @property
    def tried(self) -> str:
        return tried(self.evaluation)

    @property
    def leaks(self) -> str:
        """What test images that training had did to the score."""
        leaks = self.evaluation.get("picture", {}).get("leaks")
        if not leaks:
            return "Whether test images are in the training set too was not examined."
        free, leaked = leaks["free"], leaks["leaked"]
        if not leaked["n"]:
            return "No test image, and none that looks like one, is among the training images."
        return (
            f"{leaked['n']} of {leaks['all']['n']} test questions are about images that are among the training images or "
            f"look like one; without them the final model scores {with_interval(free)} % of {free['n']}."
        )


@dataclass(frozen=True)
class Card:
    """What the card says; `trained` is None for a model that another tool has trained.

    `pixels` are the most of an image, `rank` that of a trained adapter (0: none), `max_lora_rank` what vLLM is told of one
    that is not merged, `vision` whether it is on the vision tower too.
    """

    name: str
    merged: bool
    base: dict[str, Any]
    trained: Trained | None
    prompt: str
    answer: str
    pixels: int
    rank: int
    max_lora_rank: int
    vision: bool
    vllm: str


def markdown(card: Card) -> str:
    """The card as Markdown with the hub's front matter."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("model_card.md.j2").render(card=card, trained=card.trained)
