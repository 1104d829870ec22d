"""The protocols: what all have in common, and `strict` by hand cases where public scorers go wrong and by properties."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.polarity import NO, YES
from workflow_scripts.evaluation.protocols import PROTOCOLS, breakdown
from workflow_scripts.evaluation.protocols.strict import (
    correct,
    metrics,
    polarity,
    same_answer,
    token_f1,
    token_recall,
    tokens,
)

VOCABULARY = "yes no the lung left right 2 two 5.5 cm 是 没有 正常 肺 , . -"
words = st.lists(st.sampled_from(VOCABULARY.split()), max_size=6).map(" ".join)
texts = st.text(max_size=20) | words


def row(gold, answer, answer_type="open", source="slake", language="en", truncated=False):
    return {
        "question": "What is shown?",
        "gold": gold,
        "text": answer or "",
        "answer": answer,
        "answer_type": answer_type,
        "source": source,
        "language": language,
        "truncated": truncated,
        "image_id": "1",
    }


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The X-Ray.", ["x", "ray"]),
        ("Ｔ２－weighted", ["t2", "weighted"]),
        ("Two or THREE", ["2", "or", "3"]),
        ("5.5cm", ["5.5", "cm"]),
        ("1,000 mL", ["1000", "ml"]),
        ("−5 HU", ["-5", "hu"]),
        ("HER2+", ["her2", "+"]),
        ("右肺，左侧", ["右", "肺", "左", "侧"]),
        ("CT扫描", ["ct", "扫", "描"]),
        ("Crohn’s disease", ["crohns", "disease"]),
        ("hepatitis A", ["hepatitis", "a"]),
        (" ?!", []),
    ],
)
def test_tokens(text, expected):
    assert tokens(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("Yes", "yes.", "**Yes**", "Yes, it is abnormal", "Yes, no fracture is seen", "Yes there is"),
        *("There is a fracture", "It does.", "The answer is: yes", "Answer: Yes"),
        *("是", "是的。", "有", "包含", "包括", "存在", "可以", "能", "会", "都是", "对", "是的，正常"),
        *("有肺炎", "图片中包含肝脏。", "Yes，有", "答案:是"),
    ],
)
def test_affirmations(text):
    assert polarity(text) == "yes"


@pytest.mark.parametrize(
    "text",
    [
        *("No", "NO.", "No fracture", "There is no fracture", "There isn’t any", "It is not.", "It doesn't"),
        *("No, it is not normal", "No it is not normal", "There is an absence of air", "The answer is no."),
        *("不是", "否", "没有", "无", "不包含", "不包括", "不存在", "不可以", "不能", "不会", "不，没有"),
        *("没有骨折", "无异常", "图中没有肝脏"),
    ],
)
def test_negations(text):
    assert polarity(text) == "no"


@pytest.mark.parametrize(
    "text",
    [
        *("", "Unknown", "Not sure", "No idea", "not normal", "The lungs are normal.", "Eyes closed"),
        *("nodule", "yesterday", "no-contrast", "none", "yes or no", "yes/no", "The patient has a nodule"),
        *("There is not enough information", "No normal tissue"),
        *("正常", "健康", "不正常", "是正常的", "无法判断", "不能确定", "有没有", "是否", "对称", "对比增强"),
    ],
)
def test_neither(text):
    assert polarity(text) is None


@pytest.mark.parametrize("said, word", [*(("yes", word) for word in YES), *(("no", word) for word in NO)])
def test_each_word_that_answers_alone_opens_a_longer_answer(said, word):
    assert polarity(f"{word}, this is the case") == said


@pytest.mark.parametrize(
    "gold, answer, closed, expected",
    [
        ("Two", "2", False, True),
        ("X-Ray", "x ray", False, True),
        ("右肺, 左侧", "右肺,左侧", False, True),
        ("5.5 cm", "5.5cm", False, True),
        ("t2-weighted", "T2 weighted", False, True),
        ("Cardiomegaly", "Cardiomegaly\n", False, True),
        ("MRI", "This image was taken with MRI.", False, False),
        ("pneumothorax", "no pneumothorax", False, False),
        ("肺癌", "是肺癌。", False, False),
        ("left lung", "right lung", False, False),
        ("hypodense", "hyperdense", True, False),
        ("Liver", "liver", True, True),
        ("yes", "Yes, there is cardiomegaly.", True, True),
        ("yes", "Yes, it is abnormal.", True, True),
        ("yes", "Eyes closed", True, False),
        ("no", "Unknown", True, False),
        ("no", "The lungs are normal.", True, False),
        ("不是", "否", True, True),
        ("包含", "是", True, True),
        ("包含", "不包含", True, False),
        ("不正常", "不是", True, False),
        ("不正常", "不正常。", True, True),
        ("无", "没有", False, False),
        ("yes", None, True, False),
        ("yes", "", True, False),
        ("", "", False, False),
    ],
)
def test_correct(gold, answer, closed, expected):
    assert correct(gold, answer, closed) is expected


def test_token_scores_count_each_token_once():
    assert token_f1("in the right lower lobe, posteriorly", "right lower lobe") == pytest.approx(0.75)
    assert token_recall("in the right lower lobe, posteriorly", "right lower lobe") == pytest.approx(0.6)
    assert token_recall("pleural effusion", "effusion effusion effusion") == 0.5
    assert token_f1("pleural effusion", "effusion effusion effusion") == pytest.approx(0.4)
    assert token_f1("左肺", "右肺") == 0.5
    assert token_f1("lung", None) == token_recall("lung", None) == token_f1("", "") == 0


def test_metrics_by_hand():
    rows = [
        row("yes", "Yes, there is.", "closed"),
        row("no", None, "closed", truncated=True),
        row("left lung", "lung"),
        row("肺", "肺", language="zh", source="other"),
    ]
    assert metrics(rows) == {
        "n": 4,
        "accuracy": 0.5,
        "accuracy_terms": 0.5,
        "closed_accuracy": 0.5,
        "open_exact_match": 0.5,
        "open_token_f1": pytest.approx((2 / 3 + 1) / 2),
        "open_token_recall": 0.75,
        "unreadable": 0.25,
        "truncated": 0.25,
    }
    parts = breakdown(rows)
    assert list(parts) == ["overall", "test_sets", "languages"]
    assert {name: part["n"] for name, part in parts["test_sets"].items()} == {"other": 1, "slake": 3}
    assert parts["languages"]["zh"]["accuracy"] == 1


def test_synonyms_count_in_their_own_column_only(tmp_path):
    rows = [
        row("X-Ray", "Radiograph"),
        row("Lung, Heart", "heart and lungs"),
        row("肝脏", "肝", language="zh"),
        row("left lung", "right lung"),
        row("Hyperdense", "hypodense", "closed"),
        row("pneumothorax", "no pneumothorax"),
        row("no", "none", "closed"),
        row("CT", None, truncated=True),
        row("knee", "the genu"),
    ]
    found = metrics(rows)
    assert (found["accuracy"], found["open_exact_match"]) == (0, 0) and found["accuracy_terms"] == 3 / 9
    (tmp_path / "mine.yaml").write_text("organs: {Knee: {en: [genu]}}")
    mine = terminology.load((tmp_path / "mine.yaml",))
    assert metrics(rows, mine) == found | {"accuracy_terms": 4 / 9}
    assert breakdown(rows, mine)["languages"]["en"]["accuracy_terms"] == 3 / 8


def test_a_group_without_rows_has_no_value():
    assert metrics([row("lung", "lung")])["closed_accuracy"] is None
    assert metrics([])["n"] == 0 and set(list(metrics([]).values())[1:]) == {None}


@given(texts.filter(lambda text: any(map(str.isalnum, unicodedata.normalize("NFKC", text)))), st.booleans())
def test_gold_answers_itself(text, closed):
    assert correct(text, text, closed)
    assert same_answer(text, text)


@given(texts, texts)
def test_symmetry_and_ranges(a, b):
    assert same_answer(a, b) == same_answer(b, a)
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1 and 0 <= token_recall(a, b) <= 1
    if correct(a, b, closed=False):
        assert token_f1(a, b) == token_recall(a, b) == 1


@given(st.lists(st.builds(row, words, st.none() | words, st.sampled_from(["open", "closed"])), min_size=1))
def test_metrics_are_shares(rows):
    shares = list(metrics(rows).values())[1:]
    assert all(share is None or 0 <= share <= 1 for share in shares)


def test_same_answer_joins_the_words_for_one_polarity():
    assert same_answer("Yes", "Yes, there is.") and same_answer("否", "没有")
    assert not same_answer("no fracture", "no effusion") and not same_answer("left", "right")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_protocol_judges_every_row_and_says_what_it_counts(protocol):
    rows = [row("lung", "lung"), row("yes", None, "closed"), row("left lung", "lung", source="rad")]
    verdicts = protocol.verdicts(rows)
    assert [verdict.score is None for verdict in verdicts] == [bool(verdict.note) for verdict in verdicts]
    assert all(verdict.why for verdict in verdicts)
    found = protocol.metrics(rows)
    assert found["n"] + found.get("excluded", 0) + found.get("raised", 0) == 3
    assert set(protocol.NUMBERS) <= found.keys() and protocol.metrics([])["n"] == 0
    assert all(text and not text.endswith(".") for text in (protocol.DEFINITION, protocol.DENOMINATOR))
    assert all(fault.endswith(".") for fault in protocol.FAULTS) and protocol.FAULTS
    parts = breakdown(rows, protocol=protocol)
    assert parts["overall"] == found and parts["test_sets"]["rad"] == protocol.metrics(rows[2:])


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@given(texts, texts | st.none(), st.sampled_from(["open", "closed"]), st.sampled_from(["slake", "rad"]))
def test_no_text_is_too_odd_for_a_protocol(protocol, gold, answer, answer_type, source):
    (verdict,) = protocol.verdicts([row(gold, answer, answer_type, source)])
    assert (verdict.score is None) == (verdict.note in ("excluded", "raised"))
    assert verdict.score is None or 0 <= verdict.score <= 1
    assert all(0 <= score <= 1 for score in verdict.scores.values())
    assert verdict.scores.keys() <= set(protocol.NUMBERS)
