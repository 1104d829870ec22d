"""Reading what was written returns the answer, for any text; what lacks the form holds no answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.models.formats import AnswerFormat, escape, unescape

FORMATS = {
    "4.1v thinking": AnswerFormat(thinking=True, tagged=True),
    "4.1v base": AnswerFormat(thinking=False, tagged=True),
    "4.5v thinking": AnswerFormat(thinking=True, tagged=False),
    "4.5v base": AnswerFormat(thinking=False, tagged=False),
}
MARKUP = [
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<",
        "&",
        "lt;",
        "amp;",
        "lsqb;",
        "<|",
        "|>",
        "[",
        "MASK]",
    ),
    *("<|begin_of_box|>", "<|end_of_box|>", "[gMASK]", "<image>", "<|user|>", "<sop>"),
]
texts = st.lists(st.one_of(st.text(max_size=5), st.sampled_from(MARKUP))).map("".join)
formats = pytest.mark.parametrize("answer_format", FORMATS.values(), ids=FORMATS)


@formats
@given(answer=texts, thought=texts)
def test_reading_returns_what_was_written(answer_format, answer, thought):
    if not answer.strip():
        with pytest.raises(ValueError, match="blank"):
            answer_format.write(answer, thought)
        return
    text = answer_format.write(answer, thought)
    assert answer_format.read(text) == answer.strip()
    assert answer_format.parse(text)[0] == (thought.strip() if answer_format.thinking else "")


@given(texts)
def test_escaped_text_holds_no_markup_and_comes_back(text):
    escaped = escape(text)
    assert unescape(escaped) == text
    assert not any(
        token in escaped for token in ("<think>", "</answer>", "<image>", "<|user|>", "[gMASK]", "<sop>")
    )


@given(st.text(alphabet="abcdefghij ,.?!0123456789%<>&=肺部左侧", min_size=1))
def test_ordinary_text_is_not_changed(text):
    assert escape(text) == text


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("4.1v thinking", "<think>a</think><answer>Lung</answer>", "Lung"),
        ("4.1v thinking", "<think>a</think>\n<answer>\nLung\n</answer>", "Lung"),
        (
            "4.1v thinking",
            "<think>a</think><answer>It is <|begin_of_box|>Lung<|end_of_box|>.</answer>",
            "Lung",
        ),
        ("4.1v thinking", "<think>never closed <answer>Lung</answer>", None),
        ("4.1v thinking", "<answer>Lung</answer>", None),
        ("4.1v thinking", "<think>a</think>Lung", None),
        ("4.1v thinking", "<think>a</think><answer></answer>", None),
        (
            "4.1v thinking",
            "<think>a</think><answer><|begin_of_box|>a<|end_of_box|><|begin_of_box|>b<|end_of_box|></answer>",
            None,
        ),
        ("4.1v base", "<answer>Lung</answer>", "Lung"),
        ("4.1v base", "Lung", None),
        ("4.1v base", "<answer>Lung", None),
        ("4.5v thinking", "\n<think>a</think>\nLung", "Lung"),
        ("4.5v thinking", "\n<think>never closed", None),
        ("4.5v thinking", "Lung", None),
        ("4.5v base", "\nLung", "Lung"),
        ("4.5v base", "<think>never closed", None),
        ("4.5v base", "", None),
    ],
)
def test_readings(kind, text, answer):
    assert FORMATS[kind].read(text) == answer


@formats
@given(answer=texts.filter(str.strip), thought=texts)
def test_what_has_the_form_stays_as_it_is(answer_format, answer, thought):
    written = answer_format.write(answer, thought)
    assert answer_format.rewrite(written) == written


@pytest.mark.parametrize(
    ("kind", "text", "written"),
    [
        ("4.1v thinking", "Cardiomegaly", "<think></think><answer>Cardiomegaly</answer>"),
        (
            "4.1v thinking",
            "<think>a</think>\n<answer> Lung </answer>",
            "<think>a</think><answer>Lung</answer>",
        ),
        ("4.1v base", "< 5 cm", "<answer>< 5 cm</answer>"),
        ("4.1v base", "<think>a</think><answer>Lung</answer>", "<answer>Lung</answer>"),
        ("4.5v thinking", "Lung", "<think></think>Lung"),
        ("4.5v base", "&lt;image>", "&lt;image>"),
    ],
)
def test_a_persons_text_is_brought_into_the_form(kind, text, written):
    assert FORMATS[kind].rewrite(text) == written


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("4.1v base", " ", "blank"),
        ("4.1v base", "<answer> </answer>", "blank"),
        ("4.1v base", "<answer>Lung", "markup '<answer>Lung' is not of the form <answer>…</answer>"),
        ("4.1v thinking", "<answer>Lung</answer>", "is not of the form <think>…</think><answer>…</answer>"),
        ("4.1v thinking", "<think>a</think>Lung", "not of the form"),
        ("4.5v base", "<answer>Lung</answer>", "not of the form …"),
        ("4.5v base", "Lung<|user|>", "markup '<|user|>'"),
    ],
)
def test_what_cannot_be_brought_into_the_form_is_refused(kind, text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        FORMATS[kind].rewrite(text)


@pytest.mark.parametrize(
    "thinking, text, answer",
    [
        (True, "<think>Wide.</think><answer>Yes</answer>", "Yes"),
        (True, "<think>Wide.</think>\nYes", "Yes"),
        (True, "<think>Wide.</think><answer>Yes", "Yes"),
        (True, "<answer><|begin_of_box|>Yes<|end_of_box|></answer>", "Yes"),
        (True, "Yes", "Yes"),
        (True, "<think>Wide. Yes", None),
        (True, "<think>Wide.</think>", None),
        (True, "<|begin_of_box|>Yes<|end_of_box|><|begin_of_box|>No<|end_of_box|>", None),
        (False, "\nYes\nQuestion: Is the liver", "Yes"),
        (False, "", None),
    ],
)
def test_an_untrained_model_is_read_leniently(thinking, text, answer):
    assert AnswerFormat(thinking, tagged=True).read_leniently(text) == answer
    if thinking and "<answer>" not in text:
        assert AnswerFormat(thinking, tagged=False).read_leniently(text) == answer
