"""The table for a paper: every number with its interval, and every text escaped."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation import paper
from workflow_scripts.evaluation.table import with_interval

PDFLATEX = shutil.which("pdflatex")


def test_latex(made_evaluation):
    text = paper.latex([made_evaluation, {**made_evaluation, "run": "a&b_100%_#1"}])
    for command in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{command}") == 1
    for begun, ended in ((r"\begin{table}", r"\end{table}"), (r"\begin{tabular}", r"\end{tabular}")):
        assert text.count(begun) == text.count(ended) == 1
    assert r"made\_4.1v\_thinking" in text and r"a\&b\_100\%\_\#1" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    names, rows = (
        [row for row in rows if row.startswith(r"\multicolumn") == named] for named in (True, False)
    )
    assert len(names) == 2 and len(rows) == 1 + 2 * 3
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {6}
    assert not re.search(r"(?<!\\)[%#_$]", text.partition("\n")[2])
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


def test_a_try_is_named_one_in_both(made_evaluation):
    tried = {**made_evaluation, "limit": 32}
    for write in paper.FORMATS.values():
        assert "(a try, limit 32)" in write([tried]) and "a try" not in write([made_evaluation])


@pytest.mark.skipif(not PDFLATEX, reason="no pdflatex here: apt-get install texlive-latex-recommended")
@pytest.mark.parametrize("name", [r"a&b_100%_#1 {x} \\ ~ ^ $y$ <z> | [w]", "[combined"])
def test_the_table_compiles_and_is_no_wider_than_the_page(made_evaluation, tmp_path, name):
    table = paper.latex([made_evaluation, {**made_evaluation, "run": name}])
    lines = [
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        table,
        r"\end{document}",
    ]
    (tmp_path / "paper.tex").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0 and (tmp_path / "paper.pdf").stat().st_size > 1000, done.stdout[-1500:]
    assert "Missing character" not in done.stdout and "Overfull" not in done.stdout, done.stdout


def test_what_the_table_needs_stands_above_it(made_evaluation):
    comment, begin, *_ = paper.latex([made_evaluation]).splitlines()
    assert comment.startswith("% ") and "booktabs" in comment and "CJK" not in comment
    assert begin == r"\begin{table}"
    chinese = paper.latex([{**made_evaluation, "run": "肺_4.1v_base"}])
    assert "CJK" in chinese.splitlines()[0] and r"\text" not in chinese and "肺" in chinese


@given(st.text())
def test_no_text_is_a_command(text):
    escaped = paper.escaped(text)
    for command in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textless{}",
        r"\textgreater{}",
        r"\textbar{}",
        *(f"\\{c}" for c in "&%$#_{}"),
    ):
        escaped = escaped.replace(command, "")
    assert not set(escaped) & set("\\&%$#_{}~^<>|")
