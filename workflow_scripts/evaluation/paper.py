"""The scores of runs as one table to paste into a paper, in LaTeX or Markdown."""

from collections.abc import Callable, Sequence

from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.statistics.breakdown import OVERALL
from workflow_scripts.evaluation.table import STAGES, Evaluation, percent, with_interval

_NAMES = {"untrained": "untrained", "sft": "SFT", "dpo": "DPO"}
_HEAD = ("Run", "Model", "n", "Accuracy [95% CI]", "Leak-free [95% CI]", "Floor", "Blank")
_NOTE = (
    "Accuracy in % by the {protocol} protocol ({definition}), over all n test questions; an unreadable answer is wrong. "
    "Intervals take the questions of one image together. Leak-free: without test images that training has, or that look like "
    "one of its. Floor: from the question alone. Blank: the chosen model (*) on blank images."
)
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def latex(evaluations: Sequence[Evaluation]) -> str:
    """A table for booktabs; every text is escaped."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    body = r"\addlinespace".join("\n" + "\n".join(map(row, _rows(found))) + "\n" for found in evaluations)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(note())}}}",
            r"\begin{tabular}{llrrrrr}",
            r"\toprule",
            row(_HEAD),
            rf"\midrule{body}\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """A table of GitHub's Markdown, with its note below."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"

    rows = [row(cells) for found in evaluations for cells in _rows(found)]
    return "\n".join([row(_HEAD), "|---|---|" + "--:|" * 5, *rows, "", note().replace("*", "\\*")])


FORMATS: dict[str, Callable[[Sequence[Evaluation]], str]] = {"latex": latex, "markdown": markdown}


def note() -> str:
    """What the numbers of the table are."""
    return _NOTE.format(protocol=protocols.DEFAULT.NAME, definition=protocols.DEFAULT.DEFINITION)


def escaped(text: str) -> str:
    """`text` as LaTeX sets it."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _rows(evaluation: Evaluation) -> list[list[str]]:
    """A row for each stage; what is known of the final model alone stands beside it."""
    final, groups = evaluation["final_stage"], evaluation.get("groups", {})
    leaks = evaluation["picture"]["leaks"] if "picture" in evaluation else None
    floor = evaluation["floor"]["question_only"]["overall"]["accuracy"]
    blank = evaluation["ablation"].get("blank_image")
    found = []
    for stage in STAGES:
        if stage in evaluation["stages"]:
            overall, chosen = evaluation["stages"][stage]["overall"], stage == final
            found.append(
                [
                    evaluation["run"],
                    _NAMES[stage] + (" *" if chosen else ""),
                    f"{overall['n']:,}",
                    with_interval(groups[stage]["overall"][OVERALL]["score"])
                    if stage in groups
                    else percent(overall["accuracy"]),
                    with_interval(leaks["free"]) if chosen and leaks else "–",
                    percent(floor),
                    percent(blank["overall"]["accuracy"]) if chosen and blank else "–",
                ]
            )
    return found
