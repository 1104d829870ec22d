"""Words begin alike in their columns, and numbers end alike."""

from workflow_scripts.base.columns import aligned


def test_words_stand_left_and_numbers_right():
    rows = [["floor", "", "40.3"], ["after SFT", "of all", "9"]]
    assert aligned(rows, left=2) == ["floor              40.3", "after SFT  of all     9"]
