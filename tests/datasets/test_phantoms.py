import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.datasets import phantoms
from workflow_scripts.datasets.phantoms.drawing import LABELS

seeds = st.integers(min_value=0, max_value=phantoms.PRETRAINING_SEEDS.stop - 1)
scenes = st.builds(phantoms.scene, seeds, st.sampled_from(tuple(phantoms.FAMILIES)))


def test_data_and_pretraining_share_no_seed():
    last = phantoms.PRETRAINING_SEEDS.start - 1
    assert [phantoms.data_seed(number) for number in (0, last, last + 1)] == [
        0,
        last,
        phantoms.PRETRAINING_SEEDS.stop,
    ]


@given(scenes)
@settings(max_examples=30, deadline=None)
def test_a_scene_is_drawn_the_same_twice_and_fits_the_side(scene):
    image = phantoms.draw(scene, 112)
    assert image.mode == "RGB" and image.size == (112, 112)
    assert image.tobytes() == phantoms.draw(scene, 112).tobytes()


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_both_languages_ask_the_same(scene):
    english, chinese = phantoms.questions(scene, "en"), phantoms.questions(scene, "zh")
    assert [(q.closed, q.type) for q in english] == [(q.closed, q.type) for q in chinese]
    assert [q.answer == "Yes" for q in english] == [q.answer == "是的" for q in chinese]
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in q.text) for q in chinese)
    assert all((q.text + q.answer).isascii() and "{" not in q.text for q in english)


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_a_rephrased_question_keeps_its_answer(scene):
    asked, rephrased = phantoms.questions(scene), phantoms.questions(scene, rephrased=True)
    assert [(q.answer, q.closed, q.type) for q in asked] == [(q.answer, q.closed, q.type) for q in rephrased]
    assert all(one.text != other.text for one, other in zip(asked, rephrased, strict=True))


@given(scenes, st.sampled_from(("en", "zh")))
@settings(max_examples=60, deadline=None)
def test_every_open_answer_is_in_the_description(scene, language):
    questions = phantoms.questions(scene, language)
    assert len(questions) in (7, 9)
    description = phantoms.describe(scene, language)
    assert all(question.answer in description for question in questions if not question.closed)


@given(scenes, st.sampled_from(("en", "zh")))
@settings(max_examples=60, deadline=None)
def test_the_description_states_every_fact(scene, language):
    description = phantoms.describe(scene, language)
    assert all(phantoms.title(value, language) in description for value in phantoms.facts(scene).values())


@given(scenes, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_statement_is_true_when_the_scene_says_so(scene, seed):
    for name, value in phantoms.facts(scene).items():
        stated, holds = phantoms.statement(scene, name, random.Random(seed))
        assert holds == (stated == value or (name == "marker" and stated in value.split()))


def test_half_of_the_statements_are_true():
    chance = random.Random(0)
    verdicts = defaultdict(Counter)
    for seed in range(1000):
        scene = phantoms.scene(seed)
        for name in phantoms.facts(scene):
            verdicts[name][phantoms.statement(scene, name, chance)[1]] += 1
    assert all(0.4 < counts[True] / counts.total() < 0.6 for counts in verdicts.values())


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_a_finding_is_large_enough_and_on_the_patients_side(scene):
    labels = np.asarray(phantoms.mask(scene, 112))[:, :, 0]
    if scene.cells:
        assert (labels == LABELS["cell"]).sum() > 0.01 * labels.size * scene.cells.count
        return
    visible = {name for name, label in LABELS.items() if (labels == label).any()}
    assert (scene.finding.kind in visible) if scene.finding else not visible & set(scene.anatomy.kinds)
    if scene.finding:
        rows, columns = np.nonzero(labels == LABELS[scene.finding.kind])
        assert max(np.ptp(rows), np.ptp(columns)) >= 112 / 7 - 2
        on_the_image_left = columns.mean() < 56
        assert on_the_image_left == (scene.finding.site.startswith("right") or scene.finding.site == "liver")


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_the_marker_is_in_its_corner_only(scene):
    pixels = np.asarray(phantoms.draw(scene, 112)).astype(int).sum(axis=2)
    corners = {
        "top left": pixels[4:12, 4:12],
        "top right": pixels[4:12, -12:-4],
        "bottom left": pixels[-12:-4, 4:12],
        "bottom right": pixels[-12:-4, -12:-4],
    }
    extreme = min if scene.cells else max
    assert extreme(corners, key=lambda corner: corners[corner].mean()) == scene.marker


@given(scenes, st.sampled_from((112, 224)))
@settings(max_examples=30, deadline=None)
def test_boxes_lie_in_the_image_and_hold_their_structure(scene, side):
    labels = np.asarray(phantoms.mask(scene, side))[:, :, 0]
    for box in phantoms.boxes(scene, side):
        ((name, (x, y, width, height)),) = box.items()
        assert x >= 0 and y >= 0 and x + width <= side and y + height <= side
        inside = labels[int(y) : int(y + height), int(x) : int(x + width)] == LABELS[name.lower()]
        assert inside.sum() == (labels == LABELS[name.lower()]).sum()


def test_no_wording_gives_its_answer_away():
    answers = defaultdict(Counter)
    for seed in range(3000):
        for question in phantoms.questions(phantoms.scene(seed)):
            answers[question.text, question.closed][question.answer] += 1
    for (text, closed), counts in answers.items():
        share = max(counts.values()) / counts.total()
        assert share < (0.65 if closed else 0.4), f"{text} {counts}"


@pytest.mark.parametrize("family", phantoms.FAMILIES)
def test_scenes_of_a_family_differ(family):
    assert len({phantoms.draw(phantoms.scene(seed, family), 56).tobytes() for seed in range(20)}) == 20
