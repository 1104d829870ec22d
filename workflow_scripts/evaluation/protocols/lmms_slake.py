"""lmms-eval's score of SLAKE: exact match after a normalisation that knows yes and no in both languages."""

import re
import string
from collections.abc import Iterable, Sequence

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.protocols.medevalkit import is_slake
from workflow_scripts.evaluation.verdicts import Verdict, excluded, given, summary

NAME = "lmms_slake"
DEFINITION = "exact match after normalisation, yes and no in English and Chinese being one answer each"
DENOMINATOR = "all questions of SLAKE; those of other sets are left out"
SOURCE = (
    "lmms-eval, lmms_eval/tasks/slake/utils.py at 75571cf (August 2026), "
    "https://github.com/EvolvingLMMs-Lab/lmms-eval/tree/75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3"
)
FAULTS = (
    "正常 (normal) counts as yes and 异常 (abnormal) as no, though neither says so.",
    "存在, 不存在, 包括 and other Chinese words for yes and no are not known.",
    "Text in brackets is deleted, also where it is the answer.",
    "A decimal point becomes a space: 5.5 and 5 5 are the same; number words are no digits.",
    "Nothing is extracted from a longer answer, and the task stops at 32 tokens, before a thinking model answers; here "
    "the answer is scored that was read from the model's own form.",
)
NUMBERS = ("open_accuracy", "closed_accuracy")

_YES = {"yes", "yeah", "yep", "true", "是", "是的", "有", "包含", "可以", "能", "会", "正常"}
_NO = {
    "no", "nope", "false", "否", "不是", "没有", "无", "不包含", "不能", "不会", "不可以", "不正常", "异常"
}  # fmt: skip
_FULL_WIDTH = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～、，。；：《》？【】（）"
_SPACES = str.maketrans(dict.fromkeys(string.punctuation + _FULL_WIDTH, " "))


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row, 0 or 1; a row of another set than SLAKE is excluded."""
    return [_verdict(row) if is_slake(row) else excluded("not a question of SLAKE") for row in rows]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows."""
    return summary(verdicts(list(rows), terms), NUMBERS)


def _verdict(row: ScoredRow) -> Verdict:
    gold, said = normalised(row["gold"]), normalised(given(row))
    right = float(gold == said)
    number = "closed_accuracy" if row["answer_type"] == "closed" else "open_accuracy"
    return Verdict(right, f"normalised, the gold is {shown(gold)}, the answer {shown(said)}", {number: right})


def normalised(text: str) -> str:
    """Lower case without bracketed text and punctuation; "x ray" is one word, and each word for yes or no is the same."""
    text = text.strip().lower()
    for brackets in (r"\([^)]*\)", r"（[^）]*）"):
        text = re.sub(brackets, " ", text)
    text = " ".join(text.translate(_SPACES).split())
    if text == "x ray":
        return "xray"
    return "yes" if text in _YES else "no" if text in _NO else text
