import pytest

from workflow_scripts.datasets import polarity
from workflow_scripts.datasets.pairs import rules
from workflow_scripts.evaluation.protocols import strict


@pytest.mark.parametrize("answer", ["Yes", "NO", " no ", "不包含", "是的"])
def test_bare_words_are_yes_or_no_in_any_case(answer):
    assert polarity.is_yes_or_no(answer)


@pytest.mark.parametrize("answer", ["", "yes, left", "normal", "None", "不正常", "nothing", "正常"])
def test_anything_more_is_not(answer):
    assert not polarity.is_yes_or_no(answer)


def test_preferences_and_scoring_know_the_same_words():
    assert set(rules._POLARITY) <= set(polarity.YES + polarity.NO)
    assert not set(polarity.YES) & set(polarity.NO)
    assert {strict.polarity(word) for word in polarity.YES} == {"yes"}
    assert {strict.polarity(word) for word in polarity.NO} == {"no"}
