"""BLEU-1 and token F1 over all questions, as Med-PaLM M and MedGemma are scored."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.verdicts import Verdict, given, summary

NAME = "vqa_bleu_f1"
DEFINITION = (
    "token F1 of every answer, open or closed, and beside it BLEU-1, both as means over the questions"
)
DENOMINATOR = "all questions, open and closed alike"
SOURCE = (
    "Med-PaLM M (https://arxiv.org/abs/2307.14334, A.3) and MedGemma (https://arxiv.org/abs/2507.05201), which publish no "
    "scorer; tokens as in SQuAD 1.1 (https://arxiv.org/abs/1606.05250)"
)
FAULTS = (
    "Neither paper says how it splits and normalises tokens; numbers may differ by that.",
    "'no fracture' has an F1 of two thirds with 'fracture', 'left lung' of one half with 'right lung'.",
    "Closed questions, whose answers are one word, raise the mean.",
)
NUMBERS = ("token_f1", "bleu1")

_CHINESE = re.compile(r"([\u3400-\u9fff])")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。、；：？！（）")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row: token F1."""
    return [_verdict(row["gold"], given(row)) for row in rows]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows; `accuracy` is `token_f1`."""
    return summary(verdicts(list(rows), terms), NUMBERS)


def _verdict(gold: str, text: str) -> Verdict:
    from nltk.translate.bleu_score import sentence_bleu

    wanted, said = tokens(gold), tokens(text)
    overlap = (Counter(wanted) & Counter(said)).total()
    f1 = 2 * overlap / max(1, len(wanted) + len(said))
    bleu1 = float(sentence_bleu([wanted], said, weights=(1,)))
    why = f"the gold's tokens are {shown(' '.join(wanted))}, the answer's {shown(' '.join(said))}"
    return Verdict(f1, why, {"token_f1": f1, "bleu1": bleu1})


def tokens(text: str) -> list[str]:
    """Lower case, without punctuation and articles, split at spaces; Chinese characters one by one."""
    text = _CHINESE.sub(r" \1 ", text.lower()).translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", text).split()
