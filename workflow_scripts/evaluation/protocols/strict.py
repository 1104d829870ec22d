"""The `strict` protocol: exact match after normalisation, and yes/no by polarity, never by substring.

Beside it, in a column of its own, the same with medical synonyms taken for equal.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.polarity import NO, YES, bare, simplified
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.verdicts import Verdict, summary

NAME = "strict"
DEFINITION = "a closed yes/no question by polarity, everything else by exact match after normalisation"
DENOMINATOR = "all questions; an unreadable or truncated answer is wrong"
SOURCE = "this project; tokens and F1 as in SQuAD 1.1 (https://arxiv.org/abs/1606.05250)"
FAULTS = (
    "A right answer in other words is wrong; `accuracy_terms` counts the synonyms that the terminology knows.",
)
NUMBERS = (
    "accuracy_terms", "closed_accuracy", "open_exact_match", "open_token_f1", "open_token_recall", "unreadable",
    "truncated",
)  # fmt: skip

_LEAD = re.compile(r"(?:(?:the )?(?:final )?answer(?: is\b|:)|(?:最终)?答案(?:是:?|为:?|:)|答:)[\W_]*")


def _any_of(words: Iterable[str], english: bool) -> str:
    chosen = [re.escape(word) for word in words if word.isascii() == english]
    return "|".join(sorted(chosen, key=len, reverse=True))


_FIRST_WORD = re.compile(
    rf"(?:(?P<yes>{_any_of(YES, True)})|(?P<no>{_any_of(NO, True)}))(?![\w'-])|"
    rf"(?:(?P<zh_yes>{_any_of(YES, False)})|(?P<zh_no>{_any_of(NO, False)}))(?!\w)"
)
# What follows a "no" that answers, unlike the "no" of "no fracture".
_PAUSE = re.compile(r"\s*(?:[^\w\s]|$)|\s+(?:i|it|the|there|they|this|that|these)\b")
_STATEMENTS = (
    re.compile(
        r"there(?:'s| is| are| was| were)"
        r"(?P<no>n't|(?: an?)? (?:no|not|none|nothing|neither|absence|lack))?(?!\w)"
    ),
    re.compile(
        r"(?:it|this|that|they|these) (?:is|are|was|were|does|do|did|has|have|can)(?P<no>n't| ?not)?\W*$"
    ),
    re.compile(
        r"(?:(?:这张|这幅|该|此|本)?(?:图片|图像|影像|照片|图)(?:当?中|里|上|内)?)?"
        r"(?:(?P<no>并?(?:没有|未(?:见到?|发现|看到|检出)|不存在|不包含|不包括|不可以|不能|不会|不是)|无)|"
        r"有(?!没有|无)|存在|包含|包括|可以|能(?!否|不能)|会(?!不会|阴)|是(?!否|不是))"
    ),
)
# A statement that doubts or grades says neither yes nor no: "not normal" answers "Is it abnormal?" with yes
# and "Is it normal?" with no.
_NO_POLARITY = re.compile(
    r"\b(?:normal|healthy|sure|unsure|uncertain|unclear|clear whether|unknown|insufficient|enough|determined?|"
    r"information|idea|doubt|way to|possible to)\b|正常|健康|无法|确定|不清楚|难以|不知道|未知|判断|足够"
)


def polarity(text: str) -> str | None:
    """Return "yes" or "no" where a text begins by saying so, in English or Chinese, else None.

    An opening yes or no decides ("Yes, it is abnormal"); else "there is (no) ..." and its Chinese kin do.
    正常, "not normal" and "not sure" are None.
    """
    if said := bare(text):
        return said
    found = set(tokens(text))
    if {"yes", "no"} <= found <= {"yes", "no", "and", "or"}:
        return None
    text = unicodedata.normalize("NFKC", simplified(text)).casefold().replace("’", "'")
    text = re.sub(r"^[\W_]+", "", text)
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    first = _FIRST_WORD.match(text)
    if first and (first["yes"] or _PAUSE.match(text, first.end())):
        return "yes" if first["yes"] or first["zh_yes"] else "no"
    if _NO_POLARITY.search(text):
        return None
    if first:
        return "yes" if first["zh_yes"] else "no"
    statement = next(filter(None, (pattern.match(text) for pattern in _STATEMENTS)), None)
    return None if statement is None else "no" if statement["no"] else "yes"


def correct(gold: str, answer: str | None, closed: bool) -> bool:
    """Whether `answer` is right: the same polarity where a closed question's whole gold is a word for yes or
    no, else equal tokens (and some). None, the unreadable answer, is wrong.
    """
    if answer is None:
        return False
    if closed and (wanted := bare(gold)):
        return polarity(answer) == wanted
    return tokens(gold) == tokens(answer) != []


def same_answer(a: str, b: str) -> bool:
    """Whether two answers say the same: equal tokens, or one is a bare yes/no and the other agrees with it."""
    return tokens(a) == tokens(b) or correct(a, b, closed=True) or correct(b, a, closed=True)


def same_when_read(read: Callable[[str], str | None]) -> Callable[[str, str], bool]:
    """`same_answer` for texts that `read` finds the answers of."""
    return lambda a, b: same_answer(read(a) or "", read(b) or "")


def _overlap(gold: list[str], answer: list[str]) -> int:
    return (Counter(gold) & Counter(answer)).total()


def token_f1(gold: str, answer: str | None) -> float:
    """Harmonic mean of token precision and recall over multisets (SQuAD's F1), 0..1; 0 if either is empty."""
    gold_tokens, answer_tokens = tokens(gold), tokens(answer or "")
    return 2 * _overlap(gold_tokens, answer_tokens) / max(1, len(gold_tokens) + len(answer_tokens))


def token_recall(gold: str, answer: str | None) -> float:
    """Share of the gold tokens found in the answer, over multisets, 0..1; repetition does not raise it."""
    gold_tokens = tokens(gold)
    return _overlap(gold_tokens, tokens(answer or "")) / max(1, len(gold_tokens))


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row. An unreadable answer is wrong and stays in every denominator.

    `accuracy_terms` counts as right too what names the gold answer's concepts by `terms` (ours where it is None); no
    other number knows of synonyms.
    """
    terms = terms or terminology.load()
    return [_verdict(row, terms) for row in rows]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows: n, then shares of 0..1, None where a group is empty.

    `accuracy`, `accuracy_terms`, `unreadable` and `truncated` are over all rows; `closed_accuracy` over closed and
    the `open_*` over open ones.
    """
    return summary(verdicts(list(rows), terms), NUMBERS)


def _verdict(row: ScoredRow, terms: Terminology) -> Verdict:
    gold, answer, closed = row["gold"], row["answer"], row["answer_type"] == "closed"
    right = float(correct(gold, answer, closed))
    same_terms = answer is not None and terms.same(gold, answer)
    scores: dict[str, float] = {
        "accuracy_terms": max(right, same_terms),
        "unreadable": answer is None,
        "truncated": row["truncated"],
    }
    if closed:
        scores["closed_accuracy"] = right
    else:
        scores["open_exact_match"] = right
        scores["open_token_f1"] = token_f1(gold, answer)
        scores["open_token_recall"] = token_recall(gold, answer)
    return Verdict(right, _why(gold, answer, closed), scores)


def _why(gold: str, answer: str | None, closed: bool) -> str:
    if answer is None:
        return "unreadable: the text does not have the model's form"
    if closed and (wanted := bare(gold)):
        return f"the gold says {wanted}, the answer {polarity(answer) or 'neither yes nor no'}"
    return f"normalised, the gold is {shown(' '.join(tokens(gold)))}, the answer {shown(' '.join(tokens(answer)))}"
