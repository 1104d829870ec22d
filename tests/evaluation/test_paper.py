"""The table for a paper: every number with its interval, and every text escaped."""

import re

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation import paper
from workflow_scripts.evaluation.table import with_interval


def test_latex(made_evaluation):
    text = paper.latex([made_evaluation, {**made_evaluation, "run": "a&b_100%_#1"}])
    for command in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{command}") == 1
    for begun, ended in ((r"\begin{table}", r"\end{table}"), (r"\begin{tabular}", r"\end{tabular}")):
        assert text.count(begun) == text.count(ended) == 1
    assert r"made\_4.1v\_thinking" in text and r"a\&b\_100\%\_\#1" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 2 * 3
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {7}
    assert not re.search(r"(?<!\\)[%#_$]", text)
    free, score = (
        made_evaluation["picture"]["leaks"]["free"],
        made_evaluation["groups"]["dpo"]["overall"]["all"]["score"],
    )
    chosen = next(row for row in rows if "DPO" in row)
    assert with_interval(score) in chosen and with_interval(free) in chosen and "[" in chosen


def test_markdown(made_evaluation):
    text = paper.markdown([made_evaluation])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 and {row.count("|") for row in rows} == {8}
    assert "strict protocol" in text and r"DPO \*" in text


@given(st.text())
def test_no_text_is_a_command(text):
    escaped = paper.escaped(text)
    for command in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        *(f"\\{c}" for c in "&%$#_{}"),
    ):
        escaped = escaped.replace(command, "")
    assert not set(escaped) & set("\\&%$#_{}~^")
