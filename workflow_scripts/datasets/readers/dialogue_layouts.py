"""Dialogues as other programs lay them out, brought into the messages format of the records.

| layout | keys |
|---|---|
| messages: GLM-V, ms-swift, TRL | `messages` of `role` and `content`, which is text or a list of parts |
| ShareGPT: LLaVA, LLaMA-Factory | `conversations` of `from` and `value` |
| Alpaca: LLaMA-Factory | `instruction`, `input`, `output`, `history` |
| ms-swift's older one | `query`, `response`, `history` |

Images stand in `images` or `image`, a list or a single one, or in the parts. `system`, or a first turn of that role, is
what the user's first text begins with: the records know users and assistants only.
"""

from typing import Any

from workflow_scripts.base.errors import unknown
from workflow_scripts.datasets.readers.fields import Row
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER

READ = (
    "columns image, question and answer; messages of role and content; conversations of from and value (ShareGPT, "
    "LLaVA); instruction, input and output (Alpaca); query and response (ms-swift); VLMEvalKit's tables"
)
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_QUESTIONS = (("instruction", "output"), ("query", "response"))  # keys of the question and the answer
_IMAGE_KEYS = ("image", "image_url", "url", "path")  # of a part that is an image


def as_messages(row: Row) -> Row:
    """`row` with `messages` of texts, `images` and `system`, if it is a dialogue, else as it is.

    A dialogue that is not understood is a ValueError.
    """
    turns = _turns(row)
    if turns is None:
        return row
    beside, inside, messages = _images(row), [], []
    for number, turn in enumerate(turns):
        role, text, images = message(turn, f"turn {number + 1}")
        messages.append({"role": role, "content": text})
        inside += images
    if beside and inside and beside != inside:
        raise ValueError("images stand in the content and, others, beside it; keep one of the two")
    system = row.get("system") or ""
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
    return {**row, "messages": messages, "images": beside or inside, "system": system}


def _turns(row: Row) -> list[Any] | None:
    for key in ("messages", "conversations"):
        if row.get(key) is not None:
            if not isinstance(row[key], list):
                raise ValueError(f"{key} is not a list of turns")
            return list(row[key])
    for question, answer in _QUESTIONS:
        if question in row and answer in row:
            history = row.get("history") or []
            if not isinstance(history, list) or not all(
                isinstance(pair, list) and len(pair) == 2 for pair in history
            ):
                raise ValueError("history is not a list of questions with their answers")
            asked = [row[question], row.get("input")]
            if not all(text is None or isinstance(text, str) for text in asked):
                raise ValueError(f"{question} and input are not text")
            pairs = [*history, ["\n".join(filter(None, asked)), row[answer]]]
            return [
                {"role": role, "content": text}
                for pair in pairs
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
    return None


def _images(row: Row) -> list[Any]:
    stated = row.get("image") if row.get("images") is None else row["images"]
    return stated if isinstance(stated, list) else [] if stated is None else [stated]


def message(turn: object, where: str) -> tuple[str, object, list[object]]:
    """(role, text, the images that the turn itself names); a ValueError names `where`."""
    if not isinstance(turn, dict):
        raise ValueError(f"{where} has no role and content")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{where}: role {unknown(role, _ROLES)}")
    if not isinstance(content, list):
        return _ROLES[role], content, []
    texts, images = [], []
    for part in content:
        text, image = _part(part, where)
        texts.append(text)
        images += [] if image is None else [image]
    return _ROLES[role], "".join(texts), images


def _part(part: object, where: str) -> tuple[str, object]:
    """(the text that stands for the part, the image that it names or None)."""
    if isinstance(part, dict):
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            return part["text"], None
        if kind in ("image", "image_url"):
            image = next((part[key] for key in _IMAGE_KEYS if part.get(key) is not None), None)
            return IMAGE_PLACEHOLDER, image.get("url") if isinstance(
                image, dict
            ) and "url" in image else image
    raise ValueError(f"{where} has a part that is neither text nor an image")
