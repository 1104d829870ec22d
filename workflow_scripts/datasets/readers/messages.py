"""Dialogues that a user wrote in the messages format: {"messages": [...], "images": [...], "system": "..."}."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets import records
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import MessageSchema
from workflow_scripts.datasets.readers import markup
from workflow_scripts.datasets.readers.fields import Row, Said, dialogue, lines
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Exchange


class DialogueFields(Said):
    """The same with the user's rationale and the turns of a longer dialogue."""

    rationale: str
    turns: tuple[Exchange, ...]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    messages: list[MessageSchema] = Field(min_length=2)
    images: list[Any] = Field(min_length=1)
    system: str = ""


def fields(row: Row, where: str) -> DialogueFields:
    """The fields of an Example that the dialogue decides; its last turn is the question and the answer.

    `turns` stays empty where the dialogue is one question after one image. What `system` says stands before the first
    question. A row of another form is a UserError.
    """
    try:
        given = _Row.model_validate(row).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}: {structure.describe(error)}") from None
    messages = [_asked(message, where) for message in given["messages"]]
    texts = [message["content"] for message in messages]
    if problem := structure.dialogue_problem(messages, given["images"], last="assistant"):
        raise UserError(f"{where}: messages: {': '.join(problem)}")
    turns = [_turn(user, said, where) for user, said in zip(texts[::2], texts[1::2], strict=True)]
    if not all(turn.answer.strip() for turn in turns[:-1]):
        raise UserError(f"{where}: messages: an answer before the last is empty; remove its turn")
    rationale = turns[-1].rationale
    said = dialogue(texts[-2].replace(IMAGE_PLACEHOLDER, " ").strip(), markup.said(texts[-1])[1], lines)
    if system := lines(_plain(given["system"], where)):
        turns[0] = turns[0]._replace(user=f"{system}\n{turns[0].user}")
    plain = len(turns) == 1 and lines(turns[0].user.removeprefix(IMAGE_PLACEHOLDER)) == said["question"]
    return {**said, "rationale": rationale, "turns": () if plain else tuple(turns)}


def _plain(system: str, where: str) -> str:
    try:
        return markup.plain(system, "system turn")
    except ValueError as error:
        raise UserError(f"{where}: messages: {error}") from None


def _turn(user: str, assistant: str, where: str) -> Exchange:
    try:
        rationale, answer = markup.said(assistant)
    except ValueError as error:
        raise UserError(f"{where}: messages: {error}") from None
    return Exchange(lines(user), lines(answer), rationale)


def _asked(message: records.Message, where: str) -> records.Message:
    """A user's message with its images as placeholders; others as they are."""
    if message["role"] != "user":
        return message
    try:
        return {"role": "user", "content": markup.asked(message["content"])}
    except ValueError as error:
        raise UserError(f"{where}: messages: {error}") from None
