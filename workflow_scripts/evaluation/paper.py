"""The scores of runs as one table to paste into a paper, in LaTeX or Markdown."""

from collections.abc import Callable, Sequence

from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.statistics.breakdown import OVERALL
from workflow_scripts.evaluation.table import STAGES, Evaluation, named, percent, with_interval

_NAMES = {"untrained": "untrained", "sft": "SFT", "dpo": "DPO"}
_HEAD = ("Run", "Model", "n", "Accuracy [95% CI]", "Leak-free [95% CI]", "Floor", "Blank")
_NOTE = (
    "Accuracy in % by the {protocol} protocol ({definition}), over all n test questions; an unreadable answer is wrong. "
    "Intervals take the questions of one image together. Leak-free: without test images that training has, or that look like "
    "one of its. Floor: from the question alone. Blank: the chosen model (*) on blank images."
)
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def latex(evaluations: Sequence[Evaluation]) -> str:
    """A table for booktabs, as wide as a page's text, each run below its name; every text is escaped."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    def block(found: Evaluation) -> str:
        name = rf"\multicolumn{{{len(_HEAD) - 1}}}{{l}}{{{escaped(named(found))}}} \\"
        return "\n".join(["", name, *(row(cells[1:]) for cells in _rows(found)), ""])

    body = r"\addlinespace".join(map(block, evaluations))
    # pdfLaTeX's own fonts have Latin letters alone.
    latin = all(ord(character) < 0x370 for found in evaluations for character in found["run"])
    needed = r"\usepackage{booktabs}" + ("" if latin else "; for these names xeCJK, ctex or CJKutf8 too")
    return "\n".join(
        [
            f"% needs {needed}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(note())}}}",
            r"\small\setlength{\tabcolsep}{4pt}",
            r"\begin{tabular}{lrrrrr}",
            r"\toprule",
            row(_HEAD[1:]),
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
                    named(evaluation),
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
