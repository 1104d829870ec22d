"""The accuracy of closed questions alone, as MedVLThinker prints it."""

import re
from collections.abc import Iterable, Sequence

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.verdicts import Verdict, excluded, given, summary

NAME = "closed_only"
DEFINITION = "a closed question by exact match of the tagged answer, but for letter case"
DENOMINATOR = "closed questions by the set's own field; open ones are left out"
SOURCE = (
    "MedVLThinker, eval/run_offline_inference_v2.py at a3163b1 (August 2025), "
    "https://github.com/UCSC-VLAA/MedVLThinker/tree/a3163b1663b21cb300e93850c397917c3a4be612"
)
FAULTS = (
    "MedVLThinker shows the answers to choose from, which a language model made of question and answer, and takes a "
    "letter as well; here the question is asked as it is, which is harder.",
    "'Yes.' with a full stop is wrong for yes.",
    "Stands in tables beside scores over all questions: the open ones, which are harder, are not in it.",
)
NUMBERS: tuple[str, ...] = ()

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row, 0 or 1; an open question is excluded."""
    return [
        _verdict(row["gold"], given(row)) if row["answer_type"] == "closed" else excluded("an open question")
        for row in rows
    ]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows."""
    return summary(verdicts(list(rows), terms), NUMBERS)


def _verdict(gold: str, text: str) -> Verdict:
    tagged = _ANSWER.search(text)
    wanted, said = gold.strip().lower(), (tagged[1] if tagged else text).strip().lower()
    return Verdict(float(wanted == said), f"the gold is {shown(wanted)}, the answer {shown(said)}")
