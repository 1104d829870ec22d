"""The breakdown: every row in one group of each grouping, totals that are the mean of their parts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.evaluation.statistics.breakdown import GROUPINGS, by_group, ends_in_repetition, groups
from workflow_scripts.evaluation.statistics.clusters import clusters

SHARES = ("unreadable", "truncated", "empty", "repeated")


def row(image="1", gold="Yes", answer="yes", **more):
    return {
        "source": "rad",
        "image_id": image,
        "gold": gold,
        "answer": answer,
        "text": f"<answer>{answer}</answer>",
        "truncated": False,
        "language": "en",
        "answer_type": "closed",
        "question_type": "PRES",
        "organ": "HEAD",
        "modality": "",
        **more,
    }


ROWS = [
    row(tokens=4, seconds=1.0),
    row("1", "Left", "left lung", question_type="POS, PRES", tokens=8, seconds=2.0),
    row("2", "肺", None, text="", language="zh", answer_type="open", source="slake", organ="肺"),
    row(
        "2", "CT", "", text="<answer></answer>", language="zh", answer_type="open", source="slake", organ="肺"
    ),
    row("3", "No", None, text="the lung " * 9, truncated=True, repeated=True, tokens=16),
]
SCORES = [1, 0, 0, 0, 0.5]


def test_each_grouping():
    found = {
        name: {label: (group["score"]["n"], group["score"]["value"]) for label, group in parts.items()}
        for name, parts in by_group(ROWS, SCORES, clusters(ROWS)).items()
    }
    assert found == {
        "overall": {"all": (5, 0.3)},
        "set": {"rad": (3, 0.5), "slake": (2, 0)},
        "language": {"en": (3, 0.5), "zh": (2, 0)},
        "answer_type": {"closed": (3, 0.5), "open": (2, 0)},
        "yes_no": {"other": (3, 0), "yes/no": (2, 0.75)},  # "Left" is closed and neither
        "question_type": {"POS, PRES": (1, 0), "PRES": (4, 0.375)},
        "organ": {"HEAD": (3, 0.5), "肺": (2, 0)},
        "modality": {"not stated": (5, 0.3)},
    }


def test_what_else_is_counted():
    overall = by_group(ROWS, SCORES, clusters(ROWS))["overall"]["all"]
    assert {name: overall[name] for name in SHARES} == {
        "unreadable": 0.4,
        "truncated": 0.2,
        "empty": 0.4,
        "repeated": 0.2,
    }
    assert overall["answer_tokens"] == {"mean": 1, "median": 1, "longest": 2}
    assert overall["tokens"] == pytest.approx(28 / 3) and overall["seconds"] == 1.5
    assert overall["score"]["clusters"] == 3 and overall["score"]["interval"]
    unread = by_group([ROWS[2]], [0], np.zeros(1, int))["overall"]["all"]
    assert (unread["answer_tokens"], unread["tokens"], unread["seconds"]) == (None, None, None)
    assert unread["score"]["interval"] is None and unread["score"]["note"]


def test_no_rows_have_no_groups():
    assert by_group([], [], np.array([], int)) == {name: {} for name in GROUPINGS}


def test_it_is_written_as_json():
    found = by_group(ROWS, SCORES, clusters(ROWS))
    assert json.loads(json.dumps(found, allow_nan=False))["overall"]["all"]["score"]["n"] == 5


varied = st.builds(
    row,
    image=st.sampled_from("123"),
    gold=st.sampled_from(["Yes", "肺", "CT"]),
    answer=st.sampled_from(["Yes", "", None]),
    truncated=st.booleans(),
    language=st.sampled_from(["en", "zh"]),
    question_type=st.sampled_from(["", "POS", "POS, PRES"]),
    organ=st.sampled_from(["", "HEAD"]),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(varied, st.floats(0, 1)), min_size=1, max_size=20))
def test_totals_are_the_weighted_mean_of_their_parts(scored):
    rows, scores = map(list, zip(*scored, strict=True))
    found = by_group(rows, scores, clusters(rows))
    total = found["overall"]["all"]
    places = {name: np.concatenate(list(parts.values())) for name, parts in groups(rows).items()}
    for name, parts in found.items():
        assert sorted(places[name]) == list(range(len(rows)))
        weights = [group["score"]["n"] for group in parts.values()]
        assert sum(weights) == len(rows)
        for value in (lambda group: group["score"]["value"], *(lambda g, s=s: g[s] for s in SHARES)):
            mean = np.average([value(group) for group in parts.values()], weights=weights)
            assert mean == pytest.approx(value(total))


@pytest.mark.parametrize(
    "text, repeats",
    [
        ("the lung the lung the lung the lung", True),
        ("A. and so on and so on and so on and so on ", True),
        ("肺部肺部肺部肺部", True),
        ("the lung", False),
        ("no no no", False),
        ("", False),
        ("x" * 10_000, True),
        ("<answer>CT</answer>", False),
        ("wide mediastinum, wide mediastinum", False),
    ],
)
def test_repetition_at_the_end_of_a_text(text, repeats):
    assert ends_in_repetition(text) == repeats
