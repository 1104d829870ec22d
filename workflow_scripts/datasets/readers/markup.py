"""Markup that chat models and other frameworks put into texts: understood in its own form, else refused.

Whatever is neither would be escaped by conversion and trained as text.
"""

import re

from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER

# GLM's own image in a user's text.
_GLM_IMAGE = re.compile(r"<\|begin_of_image\|>(?:<\|image\|>)*<\|end_of_image\|>|<\|image\|>")
# A thought may lack its opening tag, which some chat templates write at the end of the prompt.
_ASSISTANT = re.compile(
    r"\s*(?:(?:<think>)?(?P<rationale>.*?)</think>)?\s*(?:<answer>(?P<tagged>.*?)</answer>\s*|(?P<bare>.*))",
    re.DOTALL,
)
_BOXED = re.compile(
    r"\s*(?:<\|begin_of_box\|>(?P<box>.*)<\|end_of_box\|>|\\boxed\{(?P<latex>[^{}]*)\})\s*", re.DOTALL
)
_MARKUP = re.compile(
    r"</?(?:think|answer|image|video|sop|eop)>|<\|[a-z_]+\|>|\[[gs]?MASK\]|\\boxed\b", re.IGNORECASE
)


def asked(text: str) -> str:
    """A user's text with GLM's images as placeholders; any other markup is a ValueError."""
    text = _GLM_IMAGE.sub(IMAGE_PLACEHOLDER, text)
    _refuse(text.replace(IMAGE_PLACEHOLDER, ""), "question")
    return text


def said(text: str) -> tuple[str, str]:
    """(rationale, answer) of an assistant's text: <think>…</think>, then the answer, in <answer> tags, a box or bare.

    Any other markup, an unclosed thought or text after </answer> for one, is a ValueError.
    """
    match = _ASSISTANT.fullmatch(text)
    assert match is not None  # everything matches: all that comes before the bare answer is optional
    rationale, answer = (
        match["rationale"] or "",
        match["bare"] if match["tagged"] is None else match["tagged"],
    )
    if box := _BOXED.fullmatch(answer):
        answer = box["latex"] if box["box"] is None else box["box"]
    for part in (rationale, answer):
        _refuse(part, "answer")
    return rationale.strip(), answer


def plain(text: str, name: str) -> str:
    """`text` as it is; markup in it is a ValueError that calls it `name`."""
    _refuse(text, name)
    return text


def _refuse(text: str, name: str) -> None:
    if found := _MARKUP.search(text):
        where = text[found.start() :].split("\n")[0][:30]
        raise ValueError(
            f"the {name} holds markup that is not understood there: {where!r}; remove it, or write an answer as "
            "<think>…</think><answer>…</answer>, <|begin_of_box|>…<|end_of_box|> or the bare answer"
        )
