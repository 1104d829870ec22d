"""What was answered against what is true: every question once, and right where the strict protocol says so."""

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.evaluation.statistics import confusion


def row(gold, answer, source="slake", kind="closed"):
    return {"gold": gold, "answer": answer, "source": source, "answer_type": kind}


def cell(found, truth, answer):
    return found["counts"][found["truths"].index(truth)][found["answers"].index(answer)]


def test_yes_and_no_as_the_strict_protocol_reads_them():
    rows = [
        row("Yes", "Yes, there is a mass."), row("yes.", "no"), row("是", "有"), row("No", "unclear"), row("no", None),
        row("Yes", "no", source="rad"), row("Lung", "Liver", kind="open"), row("Yes", "no", kind="open"),
    ]  # fmt: skip
    found = confusion.by_set(rows)
    assert list(found) == ["rad", "slake"] and found["slake"]["closed"] == 5
    table = found["slake"]["yes_no"]
    assert table["answers"] == ["yes", "no", "other", "unreadable"]
    assert table["counts"] == [[2, 1, 0, 0], [0, 0, 1, 1]] and table["n"] == 5
    assert "choices" not in found["slake"]


def test_choices_where_they_are_few():
    rows = [row("CT", "ct."), row("MRI", "CT"), row("mri", "an MRI"), row("CT", "X-Ray"), row("CT", None)]
    table = confusion.by_set(rows)["slake"]["choices"]
    assert table["truths"] == ["CT", "MRI"]
    assert table["counts"] == [[1, 0, 1, 1], [1, 1, 0, 0]]
    many = [row(f"organ {chr(97 + number)}", "x") for number in range(confusion.MOST_CHOICES + 1)]
    assert confusion.by_set(many)["slake"] == {"closed": len(many)}


WORDS = st.sampled_from(
    ["yes", "No.", "是", "没有", "CT", "ct", "MRI", "left lung", "?", "not sure", "other", ""]
)


@given(st.lists(st.tuples(WORDS.filter(bool), st.none() | WORDS | st.text(max_size=8)), max_size=30))
def test_every_question_is_counted_once_and_the_diagonal_is_what_is_right(pairs):
    rows = [row(gold, answer) for gold, answer in pairs]
    counted = right = unreadable = 0
    for found in confusion.by_set(rows).values():
        for table in (found[kind] for kind in ("yes_no", "choices") if kind in found):
            assert sum(map(sum, table["counts"])) == table["n"]
            counted += table["n"]
            right += sum(table["counts"][place][place] for place in range(len(table["truths"])))
            unreadable += sum(line[-1] for line in table["counts"])
    assert counted == len(rows)
    assert right == sum(strict.correct(gold, answer, closed=True) for gold, answer in pairs)
    assert unreadable == sum(answer is None for _, answer in pairs)
