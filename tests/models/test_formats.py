"""Reading what was written returns the answer, for any text; what lacks the form holds no answer."""

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
