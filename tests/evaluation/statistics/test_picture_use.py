"""Use of the picture, consistency over rephrasings, and scores free of leaks."""

import numpy as np
import pytest

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.evaluation.protocols.strict import same_answer
from workflow_scripts.evaluation.statistics.clusters import clusters
from workflow_scripts.evaluation.statistics.comparisons import beyond_noise, compare, holm
from workflow_scripts.evaluation.statistics.pictures import (
    consistency,
    leaked_images,
    scores_by_leak,
    use_of_picture,
)


def test_what_a_picture_is_worth_is_a_paired_difference_a_variant():
    chance = np.random.default_rng(0)
    images = np.repeat(np.arange(80), 6)
    scores = (chance.random(480) < 0.8).astype(float)
    blank = scores * (chance.random(480) < 0.7)
    found = use_of_picture(scores, {"blank": blank, "shuffled": scores, "floor": 1 - scores}, images)
    assert list(found) == ["blank", "shuffled", "floor"]
    assert found["blank"]["difference"] == compare(blank, scores, images)["difference"]
    assert found["blank"]["difference"]["value"] == pytest.approx((scores - blank).mean())
    assert beyond_noise(found["blank"]) and not beyond_noise(found["shuffled"])
    assert [one["p_holm"] for one in found.values()] == holm([one["p"] for one in found.values()])


def asked(image, linked, gold, answer):
    return {"source": "rad", "image_id": image, "linked_id": linked, "gold": gold, "answer": answer}


def test_consistency_is_of_pairs_with_one_gold():
    rows = [
        asked("1", "a", "Yes", "no"), asked("1", "a", "yes", "No."),  # both wrong, and consistent
        asked("2", "b", "Right lung", "left lung"), asked("2", "b", "right lung", "Right lung"),
        asked("3", "c", "Yes", "Yes"), asked("3", "c", "No", "Yes"),  # an inversion
        asked("4", "d", "CT", None), asked("4", "d", "CT", None),  # unreadable
        asked("5", "e", "CT", "CT"), asked("5", "e", "CT", "CT"), asked("5", "e", "CT", "MRI"),
        asked("6", "f", "CT", "CT"),  # alone
        asked("7", "", "CT", "CT"), asked("7", "", "CT", "MRI"),  # not linked
        asked("8", "g", "CT", "CT"), asked("9", "g", "CT", "MRI"),  # of two pictures
    ]  # fmt: skip
    found = consistency(rows, clusters(rows), same_answer)
    assert (found["pairs"]["n"], found["pairs"]["value"]) == (6, pytest.approx(2 / 6))
    assert (found["groups"]["n"], found["groups"]["value"]) == (4, 0.25)
    assert (found["pairs"]["clusters"], found["other_golds"]) == (4, 1)
    assert found["pairs"]["interval"] is not None


def test_sets_that_link_nothing_have_no_consistency():
    rows = [{"source": "slake", "image_id": "1", "gold": "CT", "answer": "CT"}] * 2
    found = consistency(rows, clusters(rows), same_answer)
    assert found["pairs"]["value"] is None and found["pairs"]["note"] == "no rows"


def test_rephrased_questions_of_the_real_rad_test_set(realdata):
    rows = [
        asked(row.image_id, row.linked_id, row.answer, row.answer)
        for row in READERS["rad"](realdata / "vqa_rad")
        if row.split == "test"
    ]
    found = consistency(rows, clusters(rows), same_answer)
    assert found["pairs"]["value"] == found["groups"]["value"] == 1
    assert (found["pairs"]["n"], found["groups"]["n"], found["other_golds"]) == (143, 127, 21)


def test_scores_free_of_leaks_stand_beside_the_official_one():
    leaked = leaked_images({"leaked_images": {"exact": ["slake/1"], "near_duplicates": ["slake/2"]}})
    assert leaked == {"slake/1", "slake/2"}
    assert leaked_images({"leaked_images": {"exact": [], "near_duplicates": None}}) == set()
    rows = [
        {"source": source, "image_id": image}
        for source, image in (("slake", "1"), ("slake", "2"), ("slake", "3"), ("rad", "1"), ("rad", "4"))
    ]
    found = scores_by_leak(rows, [1, 1, 0, 1, 0], clusters(rows), leaked)
    assert {name: (one["n"], one["value"]) for name, one in found.items()} == {
        "all": (5, 0.6),
        "leaked": (2, 1),
        "free": (3, pytest.approx(1 / 3)),
    }
    assert scores_by_leak(rows[:2], [1, 0], clusters(rows[:2]), leaked)["free"]["note"] == "no rows"


def test_an_older_validation_is_made_again():
    with pytest.raises(UserError, match="slake_4.1v_base: validated before .* again"):
        leaked_images({"run": "slake_4.1v_base"})
