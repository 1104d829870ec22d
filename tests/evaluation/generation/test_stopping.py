"""Answers end by themselves, at their length, in a repetition; thoughts at their budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation.generation.stopping import (
    LONGEST_CYCLE,
    REPETITION_STEP,
    REPETITION_WINDOW,
    AnswerLimits,
    GrowingAnswer,
    Thought,
    is_endless,
)

BEGIN, END, OPEN, STOP, WORD = 1, 2, 3, 4, 9


def answer(budget: int | None = None, tokens: int = 400, thinking: bool = False) -> GrowingAnswer:
    return GrowingAnswer(
        AnswerLimits(frozenset({STOP}), tokens, Thought(BEGIN, END, [END, OPEN], budget)), thinking
    )


def write(made: GrowingAnswer, tokens: list[int]) -> list[int]:
    for token in tokens:
        if made.ended:
            break
        made.take(token)
    return made.written


def test_it_ends_at_a_stop_token_or_at_its_length():
    made = answer(tokens=3)
    assert write(made, [5, STOP, 6]) == [5, STOP] and made.stopped
    made = answer(tokens=3)
    assert write(made, [5, 6, 7, STOP]) == [5, 6, 7] and made.ended and not made.stopped
    made = answer(tokens=3)
    assert write(made, [5, 6, STOP]) == [5, 6, STOP] and made.stopped


def test_a_thought_is_closed_after_its_budget_and_the_model_goes_on():
    made = answer(budget=2)
    assert write(made, [BEGIN, 5, 6, 7, 8, 10, STOP]) == [BEGIN, 5, 6, END, OPEN, 10, STOP]
    assert made.forced and made.stopped


def test_a_thought_that_the_prompt_opened_has_the_same_budget():
    made = answer(budget=2, thinking=True)
    assert write(made, [5, 6, 7, 8, 10, STOP]) == [5, 6, END, OPEN, 10, STOP]


@pytest.mark.parametrize("budget", [2, 3, None])
def test_a_thought_that_ends_in_time_is_left_alone(budget):
    made = answer(budget=budget)
    tokens = [BEGIN, 5, 6, END, OPEN, 10, 11, 12, STOP]
    assert write(made, tokens) == tokens and not made.forced


def test_without_a_thought_nothing_is_cut():
    made = answer(budget=2)
    assert write(made, [5, 6, 7, 8, 10, STOP]) == [5, 6, 7, 8, 10, STOP] and not made.forced


@pytest.mark.parametrize(
    ("ids", "opened"), [([], False), ([5, BEGIN], True), ([BEGIN, 5], True), ([BEGIN, 5, END], False)]
)
def test_whether_a_prompt_ends_within_a_thought(ids, opened):
    assert answer().limits.thought.is_open(ids) == opened
    assert not Thought(None, None, [], None).is_open(ids)


@given(
    st.lists(st.integers(5, 50), max_size=40),
    st.lists(st.integers(5, 50), min_size=1, max_size=LONGEST_CYCLE),
)
def test_an_endless_repetition_is_stopped_soon(before, cycle):
    made = answer()
    write(made, before + cycle * 2 * REPETITION_WINDOW)
    assert made.repeated and made.ended and not made.stopped
    assert len(made.written) < len(before) + REPETITION_WINDOW + REPETITION_STEP


@given(st.lists(st.integers(5, 8), max_size=300))
def test_what_is_stopped_has_written_one_cycle_throughout_the_window(tokens):
    if is_endless(tokens):
        tail = tokens[-REPETITION_WINDOW:]
        cycles = range(1, LONGEST_CYCLE + 1)
        assert any(all(tail[i] == tail[i + cycle] for i in range(len(tail) - cycle)) for cycle in cycles)


def test_a_list_and_a_long_answer_are_no_repetition():
    counted = [token for number in range(100, 200) for token in (7, number)]
    assert not answer().repeated and write(answer(), counted) == counted
    nearly = ([5, 6, 7] * REPETITION_WINDOW)[: REPETITION_WINDOW - 1]
    assert write(answer(), [*nearly, 8]) == [*nearly, 8]


def test_a_repetition_within_a_thought_that_has_a_budget_is_closed_there():
    made = answer(budget=2 * REPETITION_WINDOW)
    write(made, [BEGIN, *[WORD] * 2 * REPETITION_WINDOW, WORD, WORD, 10, STOP])
    assert made.forced and made.stopped and not made.repeated
    made = answer()
    write(made, [BEGIN, *[WORD] * 2 * REPETITION_WINDOW])
    assert made.repeated and len(made.written) <= REPETITION_WINDOW + REPETITION_STEP
