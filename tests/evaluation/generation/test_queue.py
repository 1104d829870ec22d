"""How many questions there is room for."""

import pytest

from workflow_scripts.evaluation.generation.queue import Room


@pytest.mark.parametrize(
    ("room", "questions", "prompt", "holds"),
    [
        (Room(100, 0, 0, 10, 1), 5, 10, True),
        (Room(100, 0, 0, 10, 1), 6, 10, False),
        (Room(100, 2, 10, 10, 1), 3, 5, True),  # each as long as the longest may get
        (Room(100, 2, 10, 10, 1), 4, 5, False),
        (Room(100, 2, 10, 10, 1), 3, 11, False),
        (Room(100, 0, 0, 10, 5), 1, 10, True),
        (Room(100, 0, 0, 10, 5), 2, 10, False),
        (Room(1, 0, 0, 10, 5), 1, 10, True),  # or it would never be asked
        (Room(1, 0, 0, 10, 5), 2, 10, False),
        (Room(1, 5, 10, 10, 5), 1, 10, False),
    ],
)
def test_rows_and_all_that_they_may_write_fit_into_the_budget(room, questions, prompt, holds):
    assert room.holds(questions, prompt) == holds


def test_what_is_free_is_what_no_row_may_come_to_need():
    assert Room(100, 2, 10, 15, 1).free == 0.5
    assert Room(100, 0, 0, 15, 1).free == 1
