"""Answers that say yes or no to their question in other words: 不正常 says no to 这张图片看起来正常吗, "Midline" yes."""

import re

from workflow_scripts.datasets import polarity
from workflow_scripts.datasets.tokens import tokens

_GOOD = re.compile(r"\b(?:normal(?:ly)?|healthy|unremarkable)\b|正常|健康")
_BAD = re.compile(
    r"\b(?:abnormal\w*|unhealthy|diseased|sick|ill)\b|\b(?:not|isn't|aren't|in)[ -](?:look )?(?:normal|healthy)\b|"
    r"不(?:太|是)?(?:正常|健康)|异常|患病|有病|病态"
)
_DENIED = re.compile(
    r"\b(?:no|not|without|any)\b[^.,]*\b(?:abnormal\w*|unhealthy|diseased|sick|ill)\b|"
    r"(?:无|没有?|未见|未发现|不)(?:明显|任何)?(?:异常|患病|有病)"
)
_ASKED = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|has|have|can|could)\b|[吗嗎]|是否|是不是|有没有|有沒有"
)
_SMALL = frozenset(("in", "at", "on", "with", "it", "is", "are", "there"))  # beside words of the question


def said(answer: str, question: str) -> str | None:
    """ "yes" or "no" where `answer` says so of the state that a yes/no `question` asks about, or by its words, else None."""
    asked = polarity.simplified(question).casefold()
    if not _ASKED.search(asked):
        return None
    wanted, given = _state(asked, question=True), _state(polarity.simplified(answer).casefold())
    if wanted and given:
        return "yes" if wanted == given else "no"
    words = set(tokens(answer)) - _SMALL
    is_latin = answer.isascii()  # Chinese tokens are single characters, which prove nothing
    return "yes" if is_latin and words and " or " not in asked and words <= set(tokens(question)) else None


def _state(text: str, question: bool = False) -> str | None:
    """ "good" or "bad" where the text names one of these states, None where none or, as a choice, both.

    A question for any abnormality is about the bad state; an answer that denies it names the good one.
    """
    if not question and _DENIED.search(text):
        return "good"
    bad = bool(_BAD.search(text))
    good = bool(_GOOD.search(_BAD.sub("", text)))
    if good == bad:
        return None
    return "good" if good else "bad"
