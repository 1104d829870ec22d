"""Which answers may both be right to one question, in general and among the pairs that the rules make of the real sets."""

import re
from itertools import product

import pytest

from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.pairs.rules import RULES, Answers, rule_pairs
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.records import to_record
from workflow_scripts.stages.preferences import agree, is_wrong

NORMAL, ABNORMAL = ("正常", "健康"), ("不正常", "不健康", "异常")
# Of answers to 这张图片看起来正常吗 and its like: the sides that agree among themselves.
SIDES = ({"是", "是的", *NORMAL}, {"不是", "否", *ABNORMAL})
ASKING_NORMAL = re.compile("正常吗|健康的?吗|是否(?:正常|健康)")


@pytest.mark.parametrize(
    ("question", "answer", "right", "agreed"),
    [
        ("这张图片看起来正常吗?", "不正常", "不是", True),
        ("这张图片看起来正常吗?", "不正常", "是的", False),
        ("這張圖片看起來正常嗎?", "正常", "是的", True),
        ("肝脏是健康的吗?", "健康", "是的", True),
        ("肝脏是健康的吗?", "不健康", "健康", False),
        ("肺部是否异常?", "异常", "是", True),
        ("肺部是否异常?", "正常", "不是", True),
        ("肺部是否异常?", "未见异常", "不是", True),
        ("Is the lung healthy?", "Healthy", "Yes", True),
        ("Is the lung healthy?", "Unhealthy", "No", True),
        ("Is the lung healthy?", "It looks abnormal.", "Yes", False),
        ("Does the brain look abnormal?", "Normal", "No", True),
        ("Are there abnormalities in this image?", "No abnormalities", "No", True),
        ("Is the trachea midline?", "In the midline", "yes", True),
        ("Is the trachea midline?", "Midline", "no", False),
        ("Is it normal or abnormal?", "Normal", "Abnormal", False),
        ("图中肺是正常还是异常?", "正常", "异常", False),
        ("Which organ is healthy?", "Liver", "Lung", False),
        ("Which part of the body is this?", "Brain", "Head", True),
        ("Which part of the body is this?", "Right Lung", "Chest", True),
        ("身体的哪个部位?", "大脑", "头部", True),
        ("What is the largest organ?", "Intestine", "Colon, Small Bowel", True),
        ("What is the largest organ?", "Left Kidney", "Right Kidney", False),
        ("What is the largest organ?", "Lung", "Heart", False),
        ("Which part of the body is this?", "Brain", "Chest", False),
    ],
)
def test_states_and_parts_agree_with_what_they_mean(question, answer, right, agreed):
    assert agree(answer, right, question) is agree(right, answer, question) is agreed
    record = {"source": "s", "image_id": "i", "language": "en", "question": question, "question_type": ""}
    record["answer"] = right
    assert is_wrong(answer, record, Answers([record])) is not agreed


def test_parts_are_concepts_without_circles():
    concepts = terminology.load().concepts
    for key in concepts:
        seen, waiting = set(), [key]
        while waiting:
            for whole in concepts[waiting.pop()].part_of:
                assert whole in concepts and whole != key, key
                waiting += {whole} - seen
                seen.add(whole)


def right_though_rejected(question: str, right: str, rejected: str) -> bool:
    """Whether the two say the same by the tables of this test."""
    if ASKING_NORMAL.search(question) and any({right, rejected} <= side for side in SIDES):
        return True
    return (right, rejected) in SAME_PLACE or (rejected, right) in SAME_PLACE


SAME_PLACE = {
    *product(("Brain", "Barin"), ("Head",)), *product(("大脑", "脑部", "脑"), ("头部",)),
    ("Lung", "Chest"), ("Heart", "Chest"), ("肺", "胸腔"), ("肺部", "胸部"), ("Liver", "Abdomen"), ("肝脏", "腹部"),
    ("Small Bowel", "Intestine"), ("Large Bowel", "Intestine"), ("Colon", "Large Bowel"), ("小肠", "肠"),
    ("大肠", "肠"), ("结肠", "大肠"), ("Bladder", "Pelvic Cavity"), ("膀胱", "盆腔"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "folder", "least"), [("slake", "slake", 15_500), ("rad", "vqa_rad", 1_450)])
def test_no_right_answer_is_rejected_on_the_real_files(name, folder, least, realdata):
    records = [
        to_record(row, [row.image], [(row.question, row.answer)])
        for row in READERS[name](realdata / folder)
        if row.split == "train" and row.answer
    ]
    made = list(rule_pairs(records, Answers(records), list(RULES), 42, agree))
    wrong = [
        (pair.record["question"], pair.record["answer"], pair.rejected)
        for pair in made
        if right_though_rejected(pair.record["question"], pair.record["answer"], pair.rejected)
    ]
    assert len(made) > least and wrong == []
