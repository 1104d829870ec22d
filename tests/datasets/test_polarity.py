import pytest

from workflow_scripts.datasets import polarity
from workflow_scripts.datasets.pairs import rules
from workflow_scripts.datasets.readers.fields import closed_if_yes_or_no
from workflow_scripts.evaluation.protocols import strict


@pytest.mark.parametrize("answer", ["Yes", "NO", " no ", "不包含", "是的"])
def test_bare_words_are_yes_or_no_in_any_case(answer):
    assert polarity.is_yes_or_no(answer)


@pytest.mark.parametrize("answer", ["", "yes, left", "normal", "None", "不正常", "nothing", "正常"])
def test_anything_more_is_not(answer):
    assert not polarity.is_yes_or_no(answer)


@pytest.mark.parametrize(
    "answer", ["Yes.", "“yes”", "NO!", "有。", "沒有", "沒有。", "無", "未见", "未見。", "未檢出", "會", "對"]
)
def test_punctuation_and_traditional_characters_do_not_count(answer):
    assert polarity.is_yes_or_no(answer)
    assert strict.polarity(answer) == polarity.bare(answer)
    assert closed_if_yes_or_no(answer) == "closed"
    assert rules._gold_polarity({"answer": answer}) == polarity.bare(answer)


@pytest.mark.parametrize(
    ("gold", "answer"), [("沒有", "没有。"), ("No.", "There is no mass."), ("有。", "有，左肺")]
)
def test_a_gold_answer_in_another_dress_is_scored_by_polarity(gold, answer):
    assert strict.correct(gold, answer, closed=True) and not strict.correct(gold, "Lung", closed=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("未见明显肿块", "no"),
        ("圖中沒有腫塊", "no"),
        ("這張圖片有腫塊", "yes"),
        ("未见异常", "no"),
        ("無法確定", None),
    ],
)
def test_sentences_are_read_in_traditional_characters_too(text, said):
    assert strict.polarity(text) == said


def test_preferences_and_scoring_know_the_same_words():
    assert all(polarity.bare(yes) == "yes" and polarity.bare(no) == "no" for yes, no in rules._YES_NO)
    assert not set(polarity.YES) & set(polarity.NO)
    assert {strict.polarity(word) for word in polarity.YES} == {"yes"}
    assert {strict.polarity(word) for word in polarity.NO} == {"no"}
