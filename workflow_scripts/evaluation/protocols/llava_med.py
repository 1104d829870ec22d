"""LLaVA-Med's scores: token recall of open questions, a substring's accuracy of closed ones."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.verdicts import Verdict, given, summary

NAME = "llava_med"
DEFINITION = "token recall of an open question, and of a closed one whether the gold stands in an answer with yes or no"
DENOMINATOR = "all questions, open and closed by the set's own field; print has the two apart and no total"
SOURCE = (
    "LLaVA-Med, llava/eval/run_eval.py at b9a98a7 (December 2023), "
    "https://github.com/microsoft/LLaVA-Med/tree/b9a98a736d2ef05bcf5ff345be6403fb3a664eaf"
)
FAULTS = (
    "A closed question whose gold is neither yes nor no is nearly always wrong: the ceiling is 85.3 on SLAKE-en and "
    "93.4 on VQA-RAD.",
    "Yes and no are looked for within words: an answer with 'eyes' says yes, 'unknown' and 'normal' say no.",
    "Recall counts how often the answer repeats a gold token, so repetition raises it.",
    "A long answer costs no recall, and a negation neither: 'no pneumothorax' has recall 1 for 'pneumothorax'.",
    "`open_exact_match` is the distinct gold tokens found by the answer's tokens, which is no exact match.",
    "Chinese has no spaces: all between two of them is one token.",
    "Before b9a98a7 a wrong closed answer that says yes or no was left out of the denominator; the paper's numbers are "
    "older than that.",
)
NUMBERS = (
    "open_recall", "closed_accuracy", "open_exact_match", "open_precision", "open_f1", "open_bleu1"
)  # fmt: skip

_MARKS = ';/[]"{}()=+\\_->@`<,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the original hands the flag re.UNICODE, which is 32, to `re.sub` as its count
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}}
_ARTICLES = ("a", "an", "the")
# The contractions of the VQA challenge's scorer. What lacks one of its apostrophes gets it back.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't 'ow's'at 'twas shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's what've when's where'd
where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_APOSTROPHES = {
    word[: mark.start()] + word[mark.end() :]: word
    for word in _CONTRACTIONS.split()
    for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row: recall of an open question, 0 or 1 of a closed one."""
    return [
        closed(row["gold"], given(row)) if row["answer_type"] == "closed" else opened(row["gold"], given(row))
        for row in rows
    ]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows; `accuracy` is the mean over open and closed ones together."""
    return summary(verdicts(list(rows), terms), NUMBERS)


def closed(gold: str, text: str) -> Verdict:
    """Whether the normalised gold stands in a normalised text in which yes or no stands."""
    wanted, said = normalised(gold.lower()), normalised(text.lower())
    answers = "yes" in said or "no" in said
    right = float(answers and wanted in said)
    found = "stands" if wanted in said else "does not stand"
    why = f"{shown(wanted)} {found} in {shown(said)}" if answers else f"neither yes nor no in {shown(said)}"
    return Verdict(right, why, {"closed_accuracy": right})


def opened(gold: str, text: str) -> Verdict:
    """Token recall, and the other numbers of an open question."""
    from nltk.translate.bleu_score import sentence_bleu

    wanted, said = normalised(gold.lower()), normalised(text.lower())
    bleu1 = float(sentence_bleu([wanted.split()], said.split(), weights=(1,)))
    # The original normalises once more before it counts tokens.
    gold_tokens, tokens = Counter(normalised(wanted).split()), Counter(normalised(said).split())
    found = [token for token in gold_tokens if token in tokens]
    hits = sum(tokens[token] for token in found)
    missed = sum(count for token, count in gold_tokens.items() if token not in tokens)
    precision = hits / tokens.total() if hits else 0.0
    recall = hits / (hits + missed) if hits else 0.0
    scores = {
        "open_recall": recall,
        "open_exact_match": len(found) / tokens.total() if tokens else 0.0,
        "open_precision": precision,
        "open_f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "open_bleu1": bleu1,
    }
    why = f"of the gold's tokens {shown(wanted)} it has {shown(' '.join(found))}"
    return Verdict(recall, why, scores)


def normalised(text: str) -> str:
    """A text as the VQA challenge's scorer has it.

    A mark that has a space beside it anywhere in the text is deleted, any other becomes a space; all are deleted where
    a comma stands between digits. Full stops go but before a digit, articles go, number words become digits and
    contractions get their apostrophe.
    """
    grouped = re.search(r"\d,\d", text) is not None
    table = {ord(mark): "" if grouped or f"{mark} " in text or f" {mark}" in text else " " for mark in _MARKS}
    words = _FULL_STOP.sub("", text.translate(table), count=_MOST_STOPS).lower().split()
    numbers = (_DIGITS.get(word, word) for word in words)
    return " ".join(_APOSTROPHES.get(word, word) for word in numbers if word not in _ARTICLES)
