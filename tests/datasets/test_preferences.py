"""Preference pairs: what the rules make of an answer, and which pairs are chosen."""

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.pairs import rules
from workflow_scripts.datasets.pairs.rules import OWN_ANSWER, Answers, Pair, RuleName, rule_pairs, select
from workflow_scripts.datasets.records import to_record
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.stages.preferences import agree

RULES = list(rules.RULES)


def test_every_rule_has_a_function():
    assert list(get_args(RuleName)) == RULES


def record(answer, question="Where?", image="i1", **values):
    language = "zh" if any("\u4e00" <= character <= "\u9fff" for character in answer + question) else "en"
    return {
        "id": f"{image}-{question}-{answer}",
        "source": "slake",
        "image_id": image,
        "question": question,
        "answer": answer,
        "answer_type": "open",
        "question_type": "Position",
        "language": language,
        "messages": [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": answer}],
        "images": [f"{image}.png"],
        **values,
    }


def rejected(records, *rules, seed=0):
    found = rule_pairs(records, Answers(records), list(rules), seed, agree)
    return [(pair.record["answer"], pair.rejected) for pair in found]


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("Yes", "No"),
        ("no", "yes"),
        ("YES", "NO"),
        ("Yes.", "No."),
        ("是的", "不是"),
        ("是", "不是"),
        ("不是", "是的"),
        ("有", "没有"),
        ("没有", "有"),
        ("不包含", "包含"),
        ("包括", "不包括"),
        ("不存在。", "存在。"),
        ("可以", "不可以"),
        ("不能", "能"),
        ("会", "不会"),
    ],
)
def test_polarity_turns_in_its_own_wording(answer, wrong):
    assert rejected([record(answer)], "polarity") == [(answer, wrong)]


@pytest.mark.parametrize("answer", ["Yes, on the left", "normal", "无", "不正常", "None", "Lung", "."])
def test_polarity_leaves_other_answers_alone(answer):
    assert rejected([record(answer)], "polarity") == []


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("Left", {"Right"}),
        ("RIGHT", {"LEFT"}),
        ("right side", {"left side"}),
        ("Upper Left Lobe", {"Lower Left Lobe", "Upper Right Lobe"}),
        ("T2 weighted", {"T1 weighted"}),
        ("PA", {"AP"}),
        ("右下肺", {"左下肺", "右上肺"}),
        ("左肾", {"右肾"}),
        ("顶部", {"底部"}),
        ("下颌骨", set()),
        ("左右对称", set()),
        ("Left and right lung", set()),
        ("Bright spot", set()),
        ("MRI", {"CT", "X-Ray", "Ultrasound", "PET"}),
        ("chest x-ray", {"chest mri", "chest ct", "chest ultrasound", "chest pet"}),
        ("Transverse  Plane", {"Coronal  Plane", "Sagittal  Plane"}),
        ("X光", {"核磁共振", "CT", "超声"}),
        ("横断面", {"冠状面", "矢状面"}),
        ("Neck", {"Chest", "Abdomen", "Head", "Pelvis"}),
        ("头部", {"胸腔", "腹部", "颈部", "盆腔"}),
        ("肺癌", set()),
        ("Cardiomegaly", set()),
    ],
)
def test_swap_stays_within_a_class(answer, wrong):
    found = {text for seed in range(60) for _, text in rejected([record(answer)], "swap", seed=seed)}
    assert found == wrong


def test_swap_of_an_organ_keeps_the_rest():
    (pair,) = rejected([record("Lung, Heart")], "swap")
    before, after = pair[1].split(", ")
    assert (before == "Lung") != (after == "Heart")
    (pair,) = rejected([record("肺,心脏")], "swap")
    assert "," in pair[1] and pair[1] != "肺,心脏"


def test_an_unlisted_organ_is_swapped_for_one_of_the_data():
    answers = ("Mandible", "Left Mandible", "Larynx", "Yes")
    organs = [record(answer, image=answer, question_type="Organ") for answer in answers]
    assert ("Mandible", "Larynx") in rejected(organs, "swap")
    assert ("Larynx", "Yes") not in rejected(organs, "swap")
    no_organs = [record(answer, image=answer) for answer in answers]
    assert ("Mandible", "Larynx") not in rejected(no_organs, "swap")


def test_other_image_takes_the_answer_to_the_same_question_elsewhere():
    records = [record("Two", "How many?"), record("three", "how many", "i2"), record("Four", "Why?", "i3")]
    assert rejected(records, "other_image") == [("Two", "three"), ("three", "Two")]


@pytest.mark.parametrize(
    ("answer", "elsewhere"),
    [
        ("Chest X-ray", "x-ray"),
        ("right parietal lobe", "Right"),
        ("Right", "right parietal lobe"),
        ("左肺上叶", "左肺"),
    ],
)
def test_a_part_of_the_answer_is_not_wrong(answer, elsewhere):
    assert rejected([record(answer), record(elsewhere, image="i2")], "other_image") == []


def test_no_answer_of_several_right_ones_is_rejected():
    records = [
        record("nucleus"),
        record("cell membrane"),
        record("membrane", image="i2"),
        record("wall", image="i3"),
    ]
    assert {
        wrong for right, wrong in rejected(records, "other_image") if right in ("nucleus", "cell membrane")
    } == {"wall"}


def test_no_rejected_answer_is_right_for_the_same_image_and_question():
    records = [record("Left"), record("right"), record("Left", image="i2"), record("the left!", image="i3")]
    found = rejected(records, *RULES)
    assert found == [
        ("Left", "Right"),
        ("Left", "right"),
        ("the left!", "the right!"),
        ("the left!", "right"),
    ]


ANSWERS = st.sampled_from(
    ["Yes", "No", "no", "是的", "不是", "Left", "Right lung", "MRI", "CT", "Liver", "肺", "2"]
)


@given(
    st.lists(st.tuples(ANSWERS, st.sampled_from(["Q1", "Q2"]), st.sampled_from("abc")), unique=True),
    st.integers(0, 99),
)
def test_rules_make_wrong_answers_whatever_the_order(rows, seed):
    records = [record(answer, question, image) for answer, question, image in rows]
    pairs = list(rule_pairs(records, Answers(records), RULES, seed, agree))
    for pair in pairs:
        assert pair.rejected.strip()
        assert not strict.correct(pair.record["answer"], pair.rejected, closed=True)
    assert pairs == list(rule_pairs(records, Answers(records), RULES, seed, agree))
    assert len({(pair.record["id"], pair.origin) for pair in pairs}) == len(pairs)


@given(
    st.lists(
        st.builds(
            lambda answer, question, image, wrong, origin: Pair(
                record(answer, question, image), wrong, origin
            ),
            ANSWERS,
            st.sampled_from(["Q1", "Q2"]),
            st.sampled_from("abcd"),
            st.sampled_from(["wrong", "worse"]),
            st.sampled_from([OWN_ANSWER, *RULES]),
        ),
        max_size=40,
    ),
    st.integers(0, 20),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_the_choice_keeps_every_limit(pairs, most, most_per_image, seed):
    chosen = select(pairs, most, most_per_image, seed)
    assert chosen == select(pairs, most, most_per_image, seed)
    assert len(chosen) <= most
    assert max(Counter(pair.record["image_id"] for pair in chosen).values(), default=0) <= most_per_image
    assert len({(pair.record["id"], pair.rejected) for pair in chosen}) == len(chosen)
    right = Counter(strict.polarity(pair.record["answer"]) for pair in chosen)
    assert right["yes"] == right["no"]


def test_own_answers_come_first():
    own = [Pair(record(str(n), image=str(n)), "own", OWN_ANSWER) for n in range(5)]
    ruled = [Pair(record(str(n), image=str(n)), "ruled", "swap") for n in range(5)]
    assert {pair.origin for pair in select(ruled + own, 5, 2, seed=0)} == {OWN_ANSWER}
    assert len(select(ruled + own, 9, 2, seed=0)) == 9


def test_the_choice_depends_on_the_seed():
    pairs = [Pair(record("Lung", image=str(n)), "Liver", "swap") for n in range(50)]
    assert select(pairs, 10, 1, seed=0) != select(pairs, 10, 1, seed=1)


def test_the_record_leaves_the_last_turn_out(phantom_examples):
    example = phantom_examples["slake"][0]
    source = to_record(example, ["a.png"], [("<image>Q", "<answer>A</answer>")])
    made = rules.to_record(Pair(source, "B", "swap"), "<answer>A</answer>", "<answer>B</answer>")
    assert made["messages"] == [{"role": "user", "content": "<image>Q"}]
    assert (made["prompt"], made["history"]) == ("<image>Q", [])
    assert (made["chosen"], made["rejected"]) == ("<answer>A</answer>", "<answer>B</answer>")
    assert (made["rejected_answer"], made["origin"]) == ("B", "swap")
    copied = ("images", "id", "source", "image_id", "question", "answer", "language", "answer_type")
    assert all(made[key] == source[key] for key in copied)
