"""Dialogues that a user wrote in the messages format: {"messages": [...], "images": [...]}."""

import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import Message, Text
from workflow_scripts.datasets.readers.fields import Row, Said, dialogue, tidy
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Turn, user_text

# The assistant's text may be the bare answer, or in the form that thinking models are trained on.
_ASSISTANT = re.compile(
    r"\s*(?:<think>(?P<rationale>.*?)</think>)?\s*(?:<answer>(?P<tagged>.*)</answer>\s*|(?P<bare>.*))",
    re.DOTALL,
)


class Dialogue(Said):
    """The same with the user's rationale and the turns of a longer dialogue."""

    rationale: str
    turns: tuple[Turn, ...]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    messages: list[Message] = Field(min_length=2)
    images: list[Text] = Field(min_length=1)


def fields(row: Row, where: str) -> Dialogue:
    """The fields of an Example that the dialogue decides; its last turn is the question and the answer.

    `turns` stays empty where the dialogue is one question after one image. A row of another form is a UserError.
    """
    try:
        given = _Row.model_validate(row).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}: {structure.describe(error)}") from None
    texts = [message["content"] for message in given["messages"]]
    if problem := structure.dialogue_problem(given["messages"], given["images"], last="assistant"):
        raise UserError(f"{where}: messages: {': '.join(problem)}")
    turns = [_turn(user, said) for user, said in zip(texts[::2], texts[1::2], strict=True)]
    if not all(turn.answer.strip() for turn in turns[:-1]):
        raise UserError(f"{where}: messages: an answer before the last is empty; remove its turn")
    user, answer, rationale = turns[-1]
    said = dialogue(user.replace(IMAGE_PLACEHOLDER, " ").strip(), answer)
    plain = len(turns) == 1 and tidy(user) in (
        user_text(said["question"]), user_text(" " + said["question"])
    )  # fmt: skip
    return {**said, "rationale": rationale, "turns": () if plain else tuple(turns)}


def _turn(user: str, assistant: str) -> Turn:
    match = _ASSISTANT.fullmatch(assistant)
    assert match is not None  # everything matches: all that comes before the bare answer is optional
    answer = match["bare"] if match["tagged"] is None else match["tagged"]
    return Turn(user, answer, (match["rationale"] or "").strip())
