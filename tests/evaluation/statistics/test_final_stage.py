"""The final stage: the simplest model that is not beaten."""

import numpy as np

from workflow_scripts.evaluation.statistics.comparisons import compare
from workflow_scripts.evaluation.statistics.final_stage import final_stage

IMAGES = np.repeat(np.arange(50), 4)


def scores(right):
    return (np.arange(200) < right).astype(float)


def test_a_gain_goes_on_and_says_whether_it_exceeds_its_noise():
    small = final_stage({"sft": scores(100), "dpo": scores(101)}, IMAGES)
    (step,) = small["steps"]
    assert small["stage"] == "dpo" and step["taken"] and not step["beyond_noise"]
    assert step["text"].startswith("no difference beyond noise: +0.5 [")
    assert step["gain"] == compare(scores(100), scores(101), IMAGES)
    great = final_stage({"sft": scores(100), "dpo": scores(140)}, IMAGES)
    assert great["stage"] == "dpo" and great["steps"][0]["beyond_noise"]
    assert great["steps"][0]["text"].startswith("dpo +20.0 points [")


def test_a_tie_and_a_loss_keep_the_simpler_model():
    moved = np.roll(scores(100), 7)  # other questions, as many right
    for other in (scores(100), moved, scores(90)):
        found = final_stage({"sft": scores(100), "dpo": other}, IMAGES)
        assert found["stage"] == "sft" and not found["steps"][0]["taken"]


def test_a_gain_that_only_rounding_makes_is_a_tie():
    first, second = np.array([0.1, 0.2, 0.7]), np.array([0.7, 0.1, 0.2])
    assert (second - first).mean() > 0
    found = final_stage({"sft": first, "dpo": second}, np.arange(3))
    assert found["stage"] == "sft"


def test_a_later_stage_has_to_beat_the_one_that_was_kept():
    found = final_stage({"sft": scores(100), "dpo": scores(90), "rl": scores(95)}, IMAGES)
    assert found["stage"] == "sft" and [step["over"] for step in found["steps"]] == ["sft", "sft"]
    found = final_stage({"sft": scores(100), "dpo": scores(110), "rl": scores(105)}, IMAGES)
    assert found["stage"] == "dpo" and [step["over"] for step in found["steps"]] == ["sft", "dpo"]


def test_without_validation_rows_sft_stays():
    found = final_stage({"sft": [], "dpo": []}, np.array([], int))
    assert found["stage"] == "sft" and found["steps"][0]["text"] == "no difference: no rows"
