"""Markup in a user's texts and the choices of a question: understood, or an error that names the row."""

import json

import pytest

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.readers import custom

ROW = {"image": "a.png", "question": "Is it a CT?", "answer": "Yes"}
OFFERED = {"A": "Liver", "B": "Lung", "C": "Heart", "D": "Brain"}


def read(root, *rows, **columns):
    (root / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(custom.read(root, columns))


def written(form, user, assistant):
    """A row in the form of a table or of the messages."""
    if form == "table":
        return {"image": "a.png", "question": user, "answer": assistant}
    roles = zip(
        ("user", "assistant"), (user if "image" in user else f"<image>{user}", assistant), strict=True
    )
    return {"images": ["a.png"], "messages": [{"role": role, "content": text} for role, text in roles]}


FORMS = pytest.mark.parametrize("form", ["table", "messages"])


@FORMS
@pytest.mark.parametrize(
    ("assistant", "rationale"),
    [
        ("Yes", ""),
        ("<|begin_of_box|>Yes<|end_of_box|>", ""),
        ("<answer><|begin_of_box|> Yes <|end_of_box|></answer>\n", ""),
        ("<think>Round.</think>\n<|begin_of_box|>Yes<|end_of_box|>", "Round."),
        ("Round.</think><answer>Yes</answer>", "Round."),
        ("<think>\n\n</think>\n\nYes", ""),
        (r"\boxed{Yes}", ""),
    ],
)
def test_answers_of_chat_models_are_understood(form, assistant, rationale, tmp_path):
    (row,) = read(tmp_path, written(form, "Is it a CT?", assistant))
    assert (row.question, row.answer, row.rationale, row.turns) == ("Is it a CT?", "Yes", rationale, ())


@FORMS
@pytest.mark.parametrize(
    ("user", "assistant", "markup"),
    [
        ("Q?", "<answer>Yes</answer> The finding is clear.", "answer holds .*: '<answer>Yes"),
        ("Q?", "<think>Cut before its end <answer>no</answer>", "answer holds .*: '<think>Cut"),
        ("Q?", "<answer>yes</answer><|user|>", "answer holds"),
        ("Q?", "<think>One.</think><think>Two.</think><answer>no</answer>", "answer holds .*: '<think>Two"),
        ("Q?", "<|begin_of_box|>a<|end_of_box|> or <|begin_of_box|>b<|end_of_box|>", "answer holds"),
        ("Q?", r"It is \boxed{yes}", "answer holds .*boxed"),
        ("Q? <|assistant|>", "yes", r"question holds .*: '<\|assistant\|>'"),
        ("[gMASK]<sop>Q?", "yes", "question holds"),
        ("<video>Q?", "yes", "question holds .*: '<video>Q"),
        ("Q?", "<image> yes", "(answer holds|<image> does not stand once)"),
    ],
)
def test_other_markup_is_refused_with_its_row(form, user, assistant, markup, tmp_path):
    good = written(form, "Q?", "no")
    with pytest.raises(UserError, match=rf"a\.jsonl: row 2: .*{markup}"):
        read(tmp_path, good, written(form, user, assistant))


def test_a_rationale_holds_no_markup(tmp_path):
    with pytest.raises(UserError, match="row 1: the rationale holds markup"):
        read(tmp_path, ROW | {"rationale": "<think>Look.</think>"})


@FORMS
@pytest.mark.parametrize(
    "marked",
    ["<image>{}", "<image>\n{}", "<|begin_of_image|><|image|><|end_of_image|>{}", "<|image|>\n{}"],
)
def test_an_image_before_the_question_is_its_image(form, marked, tmp_path):
    (row,) = read(tmp_path, written(form, marked.format("Is it a CT?"), "Yes"))
    assert (row.question, row.turns) == ("Is it a CT?", ())


def test_a_table_may_have_its_image_after_or_within_the_question(tmp_path):
    after, within, two = read(
        tmp_path,
        ROW | {"question": "Is it a CT?\n<image>"},
        ROW | {"question": "Is <image> a CT?"},
        ROW | {"question": "Is <image> or <image> a CT?", "image": ["a.png", "b.png"]},
    )
    assert (after.question, after.turns) == ("Is it a CT?", ())
    assert (within.question, [turn.user for turn in within.turns]) == ("Is a CT?", ["Is <image> a CT?"])
    assert [turn.user for turn in two.turns] == ["Is <image> or <image> a CT?"]
    with pytest.raises(UserError, match=r"row 1: the question has 2 <image> for 1 image\(s\)"):
        read(tmp_path, ROW | {"question": "Is <image> or <image> a CT?"})


@FORMS
def test_line_breaks_stay(form, tmp_path):
    (row,) = read(
        tmp_path, written(form, "Findings?\n\n 1.  Lungs\r\n2. Heart", "Lungs:\tclear.\n\nHeart: large.")
    )
    assert (row.question, row.answer) == ("Findings?\n1. Lungs\n2. Heart", "Lungs: clear.\nHeart: large.")
    assert row.turns == () and set(row.stated) == {"question", "answer"}


def test_line_breaks_of_a_rationale_stay(tmp_path):
    (row,) = read(tmp_path, ROW | {"rationale": "Look.\n\n See. "})
    assert row.rationale == "Look.\nSee."


def test_line_breaks_of_longer_dialogues_are_alike(tmp_path):
    texts = ["<image>What?\n\nWhere?", "A  lung.\nLeft.", "And?\r\nWhy?", "No\n\nidea."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    (row,) = read(tmp_path, {"messages": messages, "images": ["a.png"]})
    assert [tuple(turn) for turn in row.turns] == [
        ("<image>What?\nWhere?", "A lung.\nLeft.", ""), ("And?\nWhy?", "No\nidea.", "")
    ]  # fmt: skip


# Multiple choice

WRITTEN = "What is shown?\nA. Liver\nB. Lung\nC. Heart\nD. Brain"


@pytest.mark.parametrize(
    "offered",
    [
        OFFERED,
        {f"Choice {letter}": f" {letter}: {text} " for letter, text in OFFERED.items()},
        {f"option_{letter.lower()}": f"({letter}) {text}" for letter, text in OFFERED.items()},
        {f"选项{letter}": f"{letter}、{text}" for letter, text in OFFERED.items()} | {"选项E": ""},
        {"options": OFFERED},
        {"choices": list(OFFERED.values())},
    ],
)
@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "Lung", "lung", "B: Lung", "B. Lung"])
def test_choices_go_into_the_question_and_the_answer_is_the_text(offered, answer, tmp_path):
    (row,) = read(tmp_path, {"image": "a.png", "question": "What is shown?", "answer": answer, **offered})
    assert (row.question, row.answer) == (WRITTEN, "Lung")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"answer": "E"}, "the answer 'E' is none of the choices A, B, C, D"),
        ({"answer": "Kidney"}, "the answer 'Kidney' is none of the choices"),
        (dict.fromkeys(OFFERED, ""), "the choices are blank"),
        ({"B": ""}, "the choices are ACD, not A, B and so on"),
        ({"B": "liver"}, "two choices say the same"),
        ({"B": "<image>"}, "the choice B holds markup"),
        ({"A": "B", "B": "A", "answer": "A"}, "the answer 'A' is several of the choices"),
    ],
)
def test_bad_choices_are_named(changes, complaint, tmp_path):
    with pytest.raises(UserError, match=rf"a\.jsonl: row 1: {complaint}"):
        read(tmp_path, {"image": "a.png", "question": "What is shown?", "answer": "B", **OFFERED, **changes})


def test_choices_as_one_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="row 1: the choices are 'A, B'; give a column for each"):
        read(tmp_path, ROW | {"options": "A, B"})


def test_columns_that_are_fields_are_no_choices(tmp_path):
    (row,) = read(tmp_path, {"image": "a.png", "A": "Q?", "B": "Yes"}, question="A", answer="B")
    assert (row.question, row.answer) == ("Q?", "Yes")
