"""MedEvalKit's scores by rule: exact match of open questions, yes or no within closed ones."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from workflow_scripts.base.errors import brief, shown
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation.predictions import Metrics, ScoredRow
from workflow_scripts.evaluation.verdicts import Verdict, raised, summary

if TYPE_CHECKING:
    from rouge import Rouge

NAME = "medevalkit"
DEFINITION = "what is extracted from the text, by exact match, or of a yes/no question whether it has the one and not the other"
DENOMINATOR = (
    "all questions; SLAKE's are open or closed by its own field, those of other sets closed where the answer is yes or "
    "no; rows at which the original raises are counted apart"
)
SOURCE = (
    "MedEvalKit, utils/utils.py and the sets' files at 9b12e3b (February 2026), "
    "https://github.com/alibaba-damo-academy/MedEvalKit/tree/9b12e3b34232a8779cc1275417bf4f72f03d28e0"
)
FAULTS = (
    "'Yes, it is abnormal' is wrong: 'no' stands in 'abnormal', and an answer with both counts for neither.",
    "Open answers are compared as they stand: 'lung cancer.' is wrong for 'lung cancer', two for 2.",
    "The published names are rotated: `open_precision` holds F1, `open_recall` precision, `open_f1` recall.",
    "A `<think>` block without an answer's tag after it is scored with the answer.",
    "SLAKE's gold Yes with a capital letter is compared word for word, yes is looked for within the text.",
    "An empty open answer, one of spaces or full stops alone and one of about a thousand words raise and end the run.",
    "With its LLM judge, SLAKE's closed questions count twice, VQA-RAD's exact matches too, and PathVQA's closed ones not "
    "at all; published totals were made by several versions.",
)
NUMBERS = (
    "open_accuracy", "closed_accuracy", "open_bleu1", "open_rouge1", "open_rougel", "open_precision", "open_recall",
    "open_f1",
)  # fmt: skip

_BOX = r"\boxed{"
# In the order in which the original cuts the text at them.
_LEADS = (
    "**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
    "final answer is",
)  # fmt: skip


def verdicts(rows: Sequence[ScoredRow], terms: Terminology | None = None) -> list[Verdict]:
    """One for each row, by its whole text; a row at which the original would raise has no score."""
    return [_slake(row) if is_slake(row) else _other(row) for row in rows]


def metrics(rows: Iterable[ScoredRow], terms: Terminology | None = None) -> Metrics:
    """The protocol's numbers over prediction rows."""
    return summary(verdicts(list(rows), terms), NUMBERS)


def is_slake(row: ScoredRow) -> bool:
    """Whether a question is of SLAKE, by the name of its set."""
    return row["source"].lower().startswith("slake")


def is_open(row: ScoredRow) -> bool:
    """Whether the original asks a row as an open question."""
    if is_slake(row):
        return row["answer_type"] != "closed"
    return row["gold"].lower().strip() not in ("yes", "no")


def _slake(row: ScoredRow) -> Verdict:
    gold, text = row["gold"], extracted(row["text"])
    if is_open(row):
        return opened(gold, text)
    return yes_or_no(gold, text) if gold in ("yes", "no") else _closed_words(gold, text)


def _other(row: ScoredRow) -> Verdict:
    gold, text = row["gold"].lower().strip(), extracted(row["text"]).lower().strip()
    return opened(gold, text) if is_open(row) else yes_or_no(gold, text)


def yes_or_no(gold: str, text: str) -> Verdict:
    """Right where the text has one of "yes" and "no", anywhere, and the gold as well."""
    said = _bare(text)
    both = ("yes" in said) + ("no" in said)
    right = float(both == 1 and gold.lower() in said)
    found = ("neither yes nor no", "one of yes and no", "both yes and no")[both]
    return Verdict(right, f"{found} in {shown(said)}", {"closed_accuracy": right})


def _closed_words(gold: str, text: str) -> Verdict:
    right = float(_bare(text) == gold.lower())
    why = f"the gold is {shown(gold.lower())}, the answer {shown(_bare(text))}"
    return Verdict(right, why, {"closed_accuracy": right})


def _bare(text: str) -> str:
    return after_lead(text).replace("\n", "").replace(".", "")


def opened(gold: str, text: str) -> Verdict:
    """Exact match, and the other numbers of an open question."""
    from nltk.translate.bleu_score import sentence_bleu

    gold, text = gold.lower(), after_lead(text)
    try:
        rouge = _rouge().get_scores(text.lower(), gold)[0]
    except (ValueError, RecursionError) as error:
        return raised(f"ROUGE raises: {brief(error)}")
    if not gold.split() or not text.split():
        return raised("F1 of no words: one number comes where three are taken")
    right = float(text == gold)
    f1, precision, recall = _f1(set(gold.split()), set(text.lower().split()))
    scores = {
        "open_accuracy": right,
        "open_bleu1": float(sentence_bleu([_bleu_tokens(gold)], _bleu_tokens(text), weights=(1,))),
        "open_rouge1": rouge["rouge-1"]["f"],
        "open_rougel": rouge["rouge-l"]["f"],
        "open_precision": f1,
        "open_recall": precision,
        "open_f1": recall,
    }
    return Verdict(right, f"the gold is {shown(gold)}, the answer {shown(text)}", scores)


@cache
def _rouge() -> "Rouge":
    from rouge import Rouge

    return Rouge()


def _bleu_tokens(text: str) -> list[str]:
    return text.lower().replace(".", " .").split(" ")


def _f1(gold: set[str], said: set[str]) -> tuple[float, float, float]:
    """(F1, precision, recall) over sets of tokens, in the order in which the original hands them on."""
    common = len(gold & said)
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall), precision, recall


def extracted(text: str) -> str:
    """What stands in the last box, else in the tags of an answer, else the text."""
    if (box := _boxed(text)) != "None":
        return box
    return _tagged(text) if "<answer>" in text else text


def after_lead(text: str) -> str:
    """What is extracted once more of a text in lower case, and of that what follows the words that announce an answer."""
    text = text.lower()
    text = _boxed(text) if "boxed" in text else _tagged(text) if "<answer>" in text else text
    for lead in _LEADS:
        text = text.split(lead)[-1]
    return text


def _boxed(text: str) -> str:
    r"""What stands in the last \boxed{}; the word "None" where there is none, or it does not end."""
    start = text.rfind(_BOX)
    if start != -1:
        depth = 1
        for end, char in enumerate(text[start + len(_BOX) :], start + len(_BOX)):
            depth += (char == "{") - (char == "}")
            if not depth:
                return text[start + len(_BOX) : end].strip()
    return "None"


def _tagged(text: str) -> str:
    """What stands between the tags of an answer, of several with spaces between; the text where nothing does."""
    parts = []
    rest = text
    while (found := rest.partition("<answer>"))[1] and (closed := found[2].partition("</answer>"))[1]:
        parts.append(closed[0])
        rest = closed[2]
    return " ".join(parts).strip() or text
