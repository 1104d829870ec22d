"""What a model is asked: with an instruction or without, about the pictures as they are, blank or exchanged."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

from workflow_scripts.datasets.polarity import is_yes_or_no
from workflow_scripts.datasets.records import Message, Record

Variant = Literal["original", "blank", "shuffled"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
MODELS = ("untrained", "sft", "dpo", "final")  # of a run; the last is one of the two before it

# What an untrained model is told after the question, by language: (any question, a question whose answer is yes or
# no). MedEvalKit asks for the same, and like it tells the two apart by the gold answer. A Base model is no dialogue
# model: it continues the same prompt, and the first line that it writes is its answer.
INSTRUCTIONS = {
    "en": ("Answer with a single word or phrase.", "Answer with yes or no only."),
    "zh": ("请用一个词或短语回答。", "请只回答是或否。"),
}


class HowAsked(TypedDict):
    """How a model was asked: by the bare question or with an instruction, and read by its form or leniently.

    `prompt_style` is one of models.prompt_styles, `backend` one of evaluation.backends.
    """

    instruction: dict[str, list[str]] | None
    reading: Literal["lenient", "by the trained form"]
    prompt_style: str
    backend: str


def how_asked(instructed: bool, lenient: bool, prompt_style: str, backend: str) -> HowAsked:
    """Plain values; an `instructed` model is one that is untrained on the project's form."""
    instruction = {language: list(both) for language, both in INSTRUCTIONS.items()}
    return {
        "instruction": instruction if instructed else None,
        "reading": "lenient" if lenient else "by the trained form",
        "prompt_style": prompt_style,
        "backend": backend,
    }


def question_of(record: Record) -> list[Message]:
    """The dialogue of `record` up to its last question, without the answer to that."""
    messages = record["messages"]
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def instructed(record: Record) -> Record:
    """`record` with the instruction of its language on a line of its own after its last question."""
    open_question, yes_or_no = INSTRUCTIONS.get(record["language"], INSTRUCTIONS["en"])
    instruction = yes_or_no if is_yes_or_no(record["answer"]) else open_question
    messages = question_of(record)
    last: Message = {"role": "user", "content": f"{messages[-1]['content']}\n{instruction}"}
    return {**record, "messages": [*messages[:-1], last]}


def shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    """`records`, each picture exchanged for another one of its set, and of its modality where there is another.

    The same picture is always exchanged for the same other one. The only picture of a set stays.
    """
    exchanged: dict[tuple[str, str], dict[str, str]] = {}
    pictures: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for modality in ("", record["modality"]):  # "" holds the whole set
            pictures[record["source"], modality].update(record["images"])
    draw = random.Random(seed)
    for group, found in sorted(pictures.items()):
        ring = draw.sample(sorted(found), len(found))
        exchanged[group] = dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))

    def other(record: Record, image: str) -> str:
        alike = exchanged[record["source"], record["modality"]]
        return (alike if len(alike) > 1 else exchanged[record["source"], ""])[image]

    return [{**record, "images": [other(record, image) for image in record["images"]]} for record in records]
