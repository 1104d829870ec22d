"""The terminology against every answer of SLAKE, in both languages."""

from collections import defaultdict

import pytest

from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.terminology import load
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.protocols.strict import polarity

TERMS = load()


@pytest.fixture(scope="module")
def examples(realdata):
    return [example for example in READERS["slake"](realdata / "slake") if example.answer]


@pytest.fixture(scope="module")
def answers(examples):
    """Each language's distinct answers of all splits after normalisation, in their first spelling."""
    found = {"en": {}, "zh": {}}
    for example in examples:
        found[example.language].setdefault(tuple(tokens(example.answer)), example.answer)
    return found


def unknown(answers: dict) -> list[str]:
    """The answers that are neither terms nor a number nor a word for yes or no."""
    return [
        answer
        for words, answer in answers.items()
        if not (TERMS.meanings(answer) or all(word.isdigit() for word in words) or polarity(answer))
    ]


@pytest.mark.parametrize(("language", "distinct"), [("en", 222), ("zh", 268)])
def test_nearly_all_of_slake_is_known(answers, language, distinct):
    missing = unknown(answers[language])
    assert len(answers[language]) == distinct
    assert len(missing) <= 0.05 * distinct
    # "烟,增强体质" has lost the word for quitting.
    assert missing == {"en": [], "zh": ["烟,增强体质"]}[language]


def test_what_both_languages_say_is_translated(answers):
    meant = {
        language: {frozenset(TERMS.meanings(answer)): answer for answer in found if TERMS.meanings(answer)}
        for language, found in ((language, list(found.values())) for language, found in answers.items())
    }
    shared = meant["en"].keys() & meant["zh"].keys()
    assert (len(meant["en"]), len(meant["zh"]), len(shared)) == (195, 207, 180)
    for meaning in shared:
        english, chinese = meant["en"][meaning], meant["zh"][meaning]
        assert TERMS.same(TERMS.canonical(english, "zh"), chinese)
        assert TERMS.same(TERMS.canonical(chinese, "en"), english)


def test_both_languages_agree_on_the_plane_of_every_image(examples):
    """Two independent annotations: the terms must make them one."""
    planes = defaultdict(lambda: {"en": set(), "zh": set()})
    for example in examples:
        if example.question_type == "Plane" and (meaning := TERMS.meanings(example.answer)):
            planes[example.image_id][example.language].update(meaning)
    both = [plane for plane in planes.values() if plane["en"] and plane["zh"]]
    assert len(both) == 192
    assert all(plane["en"] & plane["zh"] for plane in both)
