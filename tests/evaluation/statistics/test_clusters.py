"""Clusters: rows of one image, and images that a linked question joins."""

import random

import numpy as np
import pytest

from workflow_scripts.datasets.readers import READERS
from workflow_scripts.evaluation.statistics.clusters import clusters, totals


def row(image, linked="", source="rad"):
    return {"source": source, "image_id": image, "linked_id": linked}


def partition(rows):
    labels = clusters(rows)
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


def test_rows_of_an_image_are_one_cluster_and_sets_may_name_images_alike():
    rows = [row("1"), row("2"), row("1"), row("1", source="slake"), {"source": "slake", "image_id": "1"}]
    assert partition(rows) == {frozenset({0, 2}), frozenset({1}), frozenset({3, 4})}


def test_linked_questions_join_their_images_along_a_chain():
    rows = [
        row("1", "p"),
        row("2", "p"),
        row("2", "q"),
        row("3", "q"),
        row("4"),
        row("4", "r"),
        row("5", "s"),
    ]
    assert partition(rows) == {frozenset({0, 1, 2, 3}), frozenset({4, 5}), frozenset({6})}


def test_an_image_is_no_linked_question_of_the_same_name_and_sets_do_not_share_theirs():
    rows = [row("1", "2"), row("2", "1"), row("3", "2", source="slake"), row("4", source="slake")]
    assert len(partition(rows)) == 4


def test_no_rows_have_no_clusters():
    assert clusters([]).tolist() == [] and totals([], clusters([]))[0].tolist() == []


def test_totals_do_not_depend_on_the_order_of_rows_or_the_numbers_of_clusters():
    labels, scores = np.array([3, 1, 3, 2, 2, 3]), np.array([1, 0, 1, 0, 1, 0])
    sums, sizes = totals(scores, labels)
    assert (sums.tolist(), sizes.tolist()) == ([0, 1, 2], [1, 2, 3])
    order = [5, 2, 0, 4, 1, 3]
    again = totals(scores[order], np.array(["a", "c", "b", "x"])[labels[order]])
    assert (again[0].tolist(), again[1].tolist()) == (sums.tolist(), sizes.tolist())


@pytest.fixture(scope="module")
def tested(realdata):
    examples = [row for row in READERS["rad"](realdata / "vqa_rad") if row.split == "test"]
    return [{key: getattr(row, key) for key in ("source", "image_id", "linked_id")} for row in examples]


def test_the_real_rad_test_rows(tested):
    assert all(row["linked_id"] for row in tested)
    assert (len(tested), len({row["image_id"] for row in tested})) == (451, 203)
    assert len({row["linked_id"] for row in tested}) == 298
    assert len(partition(tested)) == 203  # the one question that links two images is of train
    shuffled = random.Random(0).sample(tested, len(tested))
    assert sorted(map(len, partition(shuffled))) == sorted(map(len, partition(tested)))


def test_one_question_of_rad_links_two_images(realdata):
    rows = [
        {"source": row.source, "image_id": row.image_id, "linked_id": row.linked_id}
        for row in READERS["rad"](realdata / "vqa_rad")
    ]
    assert len({row["image_id"] for row in rows}) == 314 and len(partition(rows)) == 313
