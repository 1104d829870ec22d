"""Thoughts say only what the row says, and the answer's words only where a fact of the row states them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.records import Example
from workflow_scripts.datasets.thoughts import thought


def example(**fields) -> Example:
    base = {
        "id": "1",
        "source": "s",
        "split": "train",
        "image": "i",
        "image_id": "i",
        "question": "?",
        "answer": "a",
    }
    return Example(**{**base, "answer_type": "open", **fields})


def test_a_row_that_says_nothing_has_no_thought():
    assert thought(example()) == ""


def test_the_fact_that_is_the_answer_comes_last():
    row = example(answer="MRI", modality="MRI", organ="Brain_Tissue", question_type="Modality")
    assert (
        thought(row)
        == "The question is about the imaging modality. It shows: Brain Tissue. The image is of the modality MRI."
    )


def test_triples_are_facts_but_their_blanks_are_not():
    row = example(facts={"triple": ["vhead", "function", "ktail"]}, language="en")
    assert thought(row) == "What is asked of it is: function."
    assert thought(example(facts={"triple": ["vhead", "_", "_"]})) == ""
    assert (
        thought(example(facts={"triple": ["肝脏", "功能", "_"]}, language="zh"))
        == "所问的对象是肝脏。所问的内容是：功能。"
    )


words = st.text(alphabet="abcdefgh", min_size=1, max_size=6)


@given(
    answer=st.lists(words, min_size=1, max_size=2).map(" ".join),
    modality=st.just("") | words,
    organ=st.just("") | st.lists(words, max_size=2).map("_".join),
    kind=st.sampled_from(["", "Modality", "PRES", "Size", "what"]),
)
def test_facts_with_words_of_the_answer_come_after_all_others(answer, modality, organ, kind):
    text = thought(example(answer=answer, modality=modality, organ=organ, question_type=kind))
    tells = [bool(set(answer.split()) & set(re.findall(r"\w+", sentence))) for sentence in text.split(". ")]
    assert tells == sorted(tells)


def test_short_answers_of_the_real_set_come_last(realdata):
    rows = [row for row in READERS["slake"](realdata / "slake") if row.answer == row.modality == "CT"]
    assert len(rows) == 359
    assert all(
        thought(row).endswith(("The image is of the modality CT.", "图像的成像方式是CT。")) for row in rows
    )


def test_latin_words_are_found_among_chinese_ones():
    row = example(answer="CT图像", modality="CT", organ="肺", language="zh")
    assert thought(row) == "图像显示：肺。图像的成像方式是CT。"


def test_a_short_word_within_another_is_not_the_answer():
    row = example(answer="CT", modality="section", organ="Lung")
    assert thought(row) == "The image is of the modality section. It shows: Lung."


@pytest.mark.parametrize(
    ("language", "fields", "said"),
    [
        ("zh", {"modality": "X-Ray"}, "图像的成像方式是X光。"),
        (
            "zh",
            {"modality": "DSA", "organ": "Brain_Tissue"},
            "图像的成像方式是数字减影血管造影。图像显示：脑组织。",
        ),
        ("zh", {"modality": "PET-CT", "organ": "Left foot"}, "图像的成像方式是PET-CT。"),
        ("zh", {"organ": "HEAD"}, "图像显示：头部。"),
        ("en", {"modality": "核磁共振", "organ": "不明"}, "The image is of the modality MRI."),
        (
            "zh",
            {"modality": "X-Ray", "organ": "Lung", "answer": "X光"},
            "图像显示：肺。图像的成像方式是X光。",
        ),
        (
            "zh",
            {"modality": "MRI", "organ": "Lung", "answer": "MRI"},
            "图像显示：肺。图像的成像方式是核磁共振。",
        ),
    ],
)
def test_thoughts_are_in_the_language_of_their_row(language, fields, said):
    assert thought(example(language=language, **fields)) == said


def test_no_chinese_thought_of_the_real_set_holds_an_english_word(realdata):
    rows = [row for row in READERS["slake"](realdata / "slake") if row.language == "zh"]
    thoughts = [thought(row) for row in rows]
    assert len(thoughts) > 6900 and not [text for text in thoughts if re.search("[a-z]|X-Ray|MRI|_", text)]
    assert all("图像显示：" in text and "图像的成像方式是" in text for text in thoughts)
