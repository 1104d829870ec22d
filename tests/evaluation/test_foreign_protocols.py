"""Protocols of other projects: the values of their own functions, and their known faults."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets import readers
from workflow_scripts.evaluation.protocols import (
    closed_only,
    llava_med,
    lmms_slake,
    medevalkit,
    vqa_bleu_f1,
)

GOLDEN = json.loads(Path(__file__).with_name("golden_metrics.json").read_text("utf-8"))
OPEN = [pytest.param(vector, id=vector["pred"][:20]) for vector in GOLDEN["open"]]
CLOSED = [pytest.param(vector, id=vector["pred"][:20]) for vector in GOLDEN["closed"]]


def row(gold, text, answer_type="open", source="slake", answer=None):
    return {
        "question": "What is shown?",
        "gold": gold,
        "text": text,
        "answer": text if answer is None else answer,
        "answer_type": answer_type,
        "source": source,
        "language": "en",
        "truncated": False,
        "image_id": "1",
    }


def verdict(protocol, *arguments, **more):
    return protocol.verdicts([row(*arguments, **more)])[0]


@pytest.mark.parametrize("vector", OPEN)
def test_llava_med_scores_open_questions_as_its_own_functions_do(vector):
    found = verdict(llava_med, vector["gold"], vector["pred"])
    names = {"em": "open_exact_match", "f1": "open_f1", "prec": "open_precision", "rec": "open_recall"}
    for name, ours in {**names, "b1": "open_bleu1"}.items():
        assert found.scores[ours] == pytest.approx(vector["llava_med"][name], abs=6e-5), name
    assert found.score == found.scores["open_recall"]
    assert llava_med.normalised(vector["gold"].lower()) == vector["llava_norm_gold"]
    assert llava_med.normalised(vector["pred"].lower()) == vector["llava_norm_pred"]


@pytest.mark.parametrize("vector", CLOSED)
def test_llava_med_scores_closed_questions_as_its_own_functions_do(vector):
    assert verdict(llava_med, vector["gold"], vector["pred"], "closed").score == vector["llava_med"]


@pytest.mark.parametrize(
    ("reader", "folder", "language", "ceiling"),
    [("slake", "slake/Slake1.0", "en", 85.3), ("rad", "vqa_rad", "en", 93.4)],
)
def test_llava_med_has_a_ceiling_below_all_closed_questions(realdata, reader, folder, language, ceiling):
    golds = [
        example.answer
        for example in readers.READERS[reader](realdata / folder)
        if (example.split, example.answer_type, example.language) == ("test", "closed", language)
    ]
    found = llava_med.metrics([row(gold, gold, "closed") for gold in golds])
    assert round(100 * found["closed_accuracy"], 1) == ceiling


@pytest.mark.parametrize("vector", OPEN)
def test_medevalkit_scores_open_questions_as_its_own_functions_do(vector):
    found = verdict(medevalkit, vector["gold"], vector["pred"], source="rad")
    names = {"em": "open_accuracy", **{name: f"open_{name}" for name in ("bleu1", "rouge1", "rougel")}}
    rotated = {name: f"open_{name}" for name in ("precision", "recall", "f1")}
    for name, ours in {**names, **rotated}.items():
        assert found.scores[ours] == pytest.approx(float(vector["medevalkit_as_labelled"][name]), abs=6e-5), (
            name
        )


@pytest.mark.parametrize("vector", CLOSED)
def test_medevalkit_scores_closed_questions_as_its_own_functions_do(vector):
    text = medevalkit.extracted(vector["pred"])
    assert medevalkit.yes_or_no(vector["gold"], text).score == vector["medevalkit_yesno"]
    assert verdict(medevalkit, vector["gold"], vector["pred"], "closed").score == vector["medevalkit_slake"]


@pytest.mark.parametrize("vector", OPEN + CLOSED)
def test_lmms_eval_scores_slake_as_its_own_functions_do(vector):
    assert verdict(lmms_slake, vector["gold"], vector["pred"]).score == vector["lmms_eval_slake_exact"]
    if "lmms_norm_gold" in vector:
        assert lmms_slake.normalised(vector["gold"]) == vector["lmms_norm_gold"]
        assert lmms_slake.normalised(vector["pred"]) == vector["lmms_norm_pred"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("couldnt've", "couldn't've"),
        ("Dont 1,000 (mm)", "don't 1000 mm"),
        ("a the an", ""),
        ("5.5 cm. of", "5.5 cm of"),
        (". " * 40, " ".join("." * 8)),
        ("t2-weighted - flair", "t2weighted flair"),
    ],
)
def test_llava_med_normalises_with_its_oddities(text, expected):
    assert llava_med.normalised(text) == expected


@pytest.mark.parametrize(
    "text, source",
    [("", "rad"), (" ", "slake"), ("...", "rad"), ("The answer is", "rad"), ("a b " * 800, "slake")],
    ids=["empty", "space", "full stops", "nothing after the lead", "1600 words"],
)
def test_medevalkit_raises_at_some_open_answers_and_they_are_counted(text, source):
    found = verdict(medevalkit, "left lung", text, source=source)
    assert (found.score, found.note, dict(found.scores)) == (None, "raised", {})
    numbers = medevalkit.metrics([row("left lung", text, source=source), row("lung", "lung")])
    assert (numbers["n"], numbers["raised"], numbers["accuracy"]) == (1, 1, 1)


def test_medevalkit_routes_slake_by_its_field_and_others_by_the_answer():
    assert "closed_accuracy" in verdict(medevalkit, "Liver", "liver", "closed").scores
    assert "open_accuracy" in verdict(medevalkit, "Liver", "liver", "closed", source="rad").scores
    assert verdict(medevalkit, "Yes", "Yes, it does.", "closed").score == 0
    assert verdict(medevalkit, "Yes", "Yes, it does.", "open", source="rad").score == 1
    assert verdict(medevalkit, "yes", "Yes, it is abnormal.", "closed").score == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("\\boxed{a{b}} then \\boxed{ c }", "c"),
        ("\\boxed{open <answer>x</answer>", "x"),
        ("<answer>a</answer> and <answer>b</answer>", "a b"),
        ("<answer></answer>", "<answer></answer>"),
        ("<answer>never closed", "<answer>never closed"),
    ],
)
def test_medevalkit_extracts_boxes_before_tags(text, expected):
    assert medevalkit.extracted(text) == expected


def test_medevalkit_alone_is_given_the_whole_text_and_others_the_answer_that_was_read():
    text = "<think> Lung? </think> Lung"
    said = row("lung", text, answer="Lung")
    assert medevalkit.verdicts([said])[0].score == 0
    for protocol in (llava_med, lmms_slake, vqa_bleu_f1):
        assert protocol.verdicts([said])[0].score == 1
    unreadable = {**said, "answer": None}
    assert vqa_bleu_f1.verdicts([unreadable])[0].score == pytest.approx(2 / 5)


def test_lmms_eval_and_medvlthinker_leave_rows_out():
    rows = [row("lung", "lung"), row("yes", "Yes", "closed", "rad"), row("yes", "Yes.", "closed")]
    lmms, closed = lmms_slake.metrics(rows), closed_only.metrics(rows)
    assert (lmms["n"], lmms["excluded"], lmms["accuracy"]) == (2, 1, 1)
    assert (closed["n"], closed["excluded"], closed["accuracy"]) == (2, 1, 0.5)
    assert verdict(closed_only, "Yes", "It is so. <answer> yes\n</answer>", "closed").score == 1


@pytest.mark.parametrize(
    "gold, text, f1, bleu1",
    [
        ("Left lung", "the left lung.", 1, 1),
        ("Left lung", "right lung", 0.5, 0.5),
        ("fracture", "no fracture", 2 / 3, 0.5),
        ("左肺", "右肺。", 0.5, 0.5),
        ("lung", "", 0, 0),
        ("", "", 0, 0),
        ("t2-weighted", "T2 weighted", 0, 0),
    ],
)
def test_bleu_and_f1_by_hand(gold, text, f1, bleu1):
    found = verdict(vqa_bleu_f1, gold, text)
    assert found.scores == {"token_f1": pytest.approx(f1), "bleu1": pytest.approx(bleu1)}
    assert found.score == found.scores["token_f1"]


@given(
    st.lists(st.sampled_from(["a", "b", ".", "left", "lung", "x-ray"]), max_size=30).map(" ".join), st.text()
)
def test_rouge_of_many_sentences_is_a_share(text, gold):
    assert all(0 <= score <= 1 for score in verdict(medevalkit, gold, text).scores.values())
