"""The page about scale says what its script computes, and that grows as it must."""

import pytest

from docs import scale


@pytest.fixture(scope="module")
def columns():
    return {name: scale.figures(settings) for name, settings in scale.studies().items()}


@pytest.mark.parametrize("page", scale.PAGES, ids=lambda page: page.name)
def test_the_page_has_todays_figures(page):
    text = page.read_text(encoding="utf-8")
    assert scale.written(text, scale.PAGES[page]) == text


def test_the_figures_are_those_of_the_runs(columns):
    full, large, hundred = columns["full"], columns["4.5v"], columns["hundred"]
    assert (full["runs"], large["runs"], hundred["runs"]) == (32, 8, 200)
    assert full["jobs"] == 32 * 11 + 8 + 3 + 2
    assert full["models"] > large["models"] == round(2 * 2 * 107.74)
    for column in columns.values():
        assert column["bound"] > column["h200"] > 0
        assert column["features"] <= 50
    assert hundred["files"] > 6 * full["files"]
