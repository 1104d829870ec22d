"""Charts: what they show, in the page's colours, with any text."""

import re
from xml.etree import ElementTree

import pytest

from workflow_scripts.pages import charts
from workflow_scripts.pages.charts import Point

HOSTILE = '</text><script>alert("x")</script>'


def drawn(chart):
    ElementTree.fromstring(chart)
    assert "#" not in re.sub(r"var\(--\w+\)", "", " ".join(re.findall(r'(?:fill|stroke)="([^"]+)"', chart)))
    return chart


def test_a_forest_plot_has_each_line_with_its_interval_and_the_floor():
    points = [Point("SFT", 62.3, (58.1, 66.4), True), Point("Untrained", 31.0, None)]
    chart = drawn(charts.forest_plot("Accuracy", points, "accuracy, %", 35.5))
    assert ": 58.1;" in chart and "high: 66.4" in chart and ": 31;" in chart and "reference: 35.5" in chart
    assert ">SFT<" in chart and ">Untrained<" in chart and "accuracy, %" in chart


def test_texts_stay_texts():
    chart = drawn(charts.forest_plot(HOSTILE, [Point(HOSTILE, 1, (0, 2))], "x"))
    assert "<script" not in chart
    assert "肺" in drawn(charts.forest_plot("肺", [Point("肺", 1, (0, 2))], "x"))


@pytest.mark.parametrize(
    "points", [[(5, 2.0)], [(1, -1.0), (2, 0.0), (3, 1.0)], [(1, 0.0), (2, float("nan"))]]
)
def test_a_curve_stays_inside_its_frame(points):
    chart = drawn(charts.line_chart("loss", points))
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart).groups())
    assert 300 <= width < 400 and 140 <= height < 220 and "NaN" not in chart


def test_a_histogram_says_its_limit_where_it_is_in_sight():
    bins = [(0, 50, 7), (50, 100, 3)]
    assert "limit 80" in drawn(charts.histogram("lengths", bins, 80))
    assert "limit 200" not in drawn(charts.histogram("lengths", bins, 200))


def test_nothing_to_draw():
    assert charts.line_chart("loss", [(1, float("nan"))]) == ""
    assert charts.histogram("lengths", [], None) == ""
    assert charts.forest_plot("scores", [None], "x") == ""


def test_a_confusion_has_each_count_once_under_any_labels():
    found = {
        "n": 1234,
        "truths": [HOSTILE, "other"],
        "answers": [HOSTILE, "other", "other", "unreadable"],
        "counts": [[1200, 3, 7, 0], [5, 19, 0, 0]],
    }
    chart = drawn(charts.confusion("closed", found))
    assert [int(text.replace(",", "")) for text in re.findall(r">([\d,]+)</text>", chart)] == [
        *(1200, 3, 7, 0),
        *(5, 19, 0, 0),
    ]
    assert "<script" not in chart and chart.count(">other<") == 3 and ">unreadable<" in chart
