"""Charts as inline SVG, drawn by Vega-Lite when a page is written; their colours are the page's own, light and dark."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from workflow_scripts.evaluation.statistics.confusion import Confusion
from workflow_scripts.evaluation.statistics.intervals import Estimate

WIDTH = 300  # of the plot, without its labels; pages scale the whole
_CONFIG = {
    "background": None,
    "padding": {
        "left": 14,
        "right": 14,
        "top": 5,
        "bottom": 5,
    },  # a browser's font may be wider than the one measured
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "gridColor": "var(--rule)",
        "domain": False,
        "ticks": False,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelPadding": 6,
        "labelFlush": False,
        "labelLimit": 220,
    },
}
_REFERENCE = {"type": "rule", "color": "var(--warn)", "strokeDash": [4, 3]}


class Point(NamedTuple):
    """A line of a forest plot: a value and the ends of its interval, in the unit of the axis; None for no interval."""

    label: str
    value: float
    interval: tuple[float, float] | None
    strong: bool = False


def point(label: str, found: Estimate, strong: bool = False) -> Point | None:
    """An estimate of a share, in per cent; None where there is no value."""
    if found["value"] is None:
        return None
    interval = found["interval"]
    ends = (100 * interval[0], 100 * interval[1]) if interval else None
    return Point(label, 100 * found["value"], ends, strong)


def _svg(title: str, spec: dict[str, Any]) -> Markup:
    import vl_convert

    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": _CONFIG, **spec}
    drawn: str = vl_convert.vegalite_to_svg(whole)  # which escapes the texts in it
    return Markup(drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1))


def _values(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"values": list(rows)}


def forest_plot(
    title: str, points: Sequence[Point | None], axis: str, reference: float | None = None
) -> Markup:
    """Values with their intervals, one below the other, and a dashed line at `reference`; "" for none."""
    points = [point for point in points if point]
    if not points:
        return Markup("")
    rows = [
        {
            "label": point.label,
            "value": point.value,
            "low": point.interval[0] if point.interval else point.value,
            "high": point.interval[1] if point.interval else point.value,
            "strong": point.strong,
        }
        for point in points
        if point
    ]
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": {"grid": False}}
    scale = {"zero": False, "nice": True}
    colour = {"condition": {"test": "datum.strong", "value": "var(--accent)"}, "value": "var(--muted)"}
    layer: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2.5},
            "encoding": {
                "y": y,
                "x": {"field": "low", "type": "quantitative", "title": axis, "scale": scale},
                "x2": {"field": "high"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"y": y, "x": {"field": "value", "type": "quantitative"}, "color": colour},
        },
    ]
    if reference is not None:
        across = {"field": "reference", "type": "quantitative"}
        layer.insert(
            0,
            {
                "data": _values([{"reference": reference}]),
                "mark": _REFERENCE,
                "encoding": {"x": across},
            },
        )
    return _svg(title, {"width": WIDTH, "height": {"step": 26}, "data": _values(rows), "layer": layer})


def confusion(title: str, found: Confusion) -> Markup:
    """How often each truth, downwards, got each answer, across; darker for a larger share of its row."""
    rows = [
        {"truth": truth, "answer": answer, "count": count, "share": count / max(1, sum(counts))}
        for truth, counts in enumerate(found["counts"])
        for answer, count in enumerate(counts)
    ]

    def axis(field: str, labels: Sequence[str], named: str, **more: Any) -> dict[str, Any]:
        """By number, and labelled: an answer may be any text, that of another too."""
        shown = {"labelExpr": f"{json.dumps(labels)}[datum.value]", "grid": False, "labelLimit": 110, **more}
        return {"field": field, "type": "ordinal", "title": named, "axis": shown}

    place = {
        "x": axis("answer", found["answers"], "answered", orient="top", labelAngle=-30, labelAlign="left"),
        "y": axis("truth", found["truths"], "true"),
    }
    shade = {
        "field": "share",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "range": [0.06, 0.7]},
        "legend": None,
    }
    layer = [
        {"mark": {"type": "rect", "color": "var(--accent)"}, "encoding": {**place, "opacity": shade}},
        {
            "mark": {"type": "text", "color": "var(--ink)", "fontSize": 12},
            "encoding": {**place, "text": {"field": "count", "type": "quantitative", "format": ","}},
        },
    ]
    size = {"width": {"step": 58}, "height": {"step": 32}}
    return _svg(title, {**size, "data": _values(rows), "layer": layer})


def line_chart(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A curve of (x, y), such as loss by step; points that are not finite are left out."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return Markup("")
    single = {"color": "var(--accent)"} if len(points) == 1 else False
    spec = {
        "width": WIDTH,
        "height": 140,
        "data": _values([{"step": x, "value": y} for x, y in points]),
        "mark": {"type": "line", "color": "var(--accent)", "strokeWidth": 1.8, "point": single},
        "encoding": {
            "x": {
                "field": "step",
                "type": "quantitative",
                "axis": {"grid": False, "tickCount": 5},
                "scale": {"zero": False, "nice": False},
            },
            "y": {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 4}},
        },
    }
    return _svg(title, spec)


def histogram(title: str, bins: Sequence[tuple[float, float, int]], limit: float | None) -> Markup:
    """Upright bars of (low, high, count) on one axis, with a dashed line at `limit` where it is in sight."""
    if not bins:
        return Markup("")
    low, high = bins[0][0], bins[-1][1]
    layer: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "color": "var(--accent)", "binSpacing": 1},
            "encoding": {
                "x": {
                    "field": "low",
                    "type": "quantitative",
                    "bin": {"binned": True},
                    "title": None,
                    "scale": {"domain": [low, high]},
                    "axis": {"grid": False, "tickCount": 6},
                },
                "x2": {"field": "high"},
                "y": {"field": "count", "type": "quantitative", "title": None, "axis": {"tickCount": 3}},
            },
        }
    ]
    if limit is not None and low <= limit <= high:
        at_limit = {"x": {"field": "limit", "type": "quantitative"}}
        text = {
            "type": "text",
            "align": "right" if limit > (low + high) / 2 else "left",
            "dx": -4 if limit > (low + high) / 2 else 4,
            "color": "var(--muted)",
        }
        layer.append(
            {
                "data": _values([{"limit": limit, "said": f"limit {limit:g}"}]),
                "layer": [
                    {"mark": _REFERENCE, "encoding": at_limit},
                    {"mark": text, "encoding": {**at_limit, "y": {"value": 6}, "text": {"field": "said"}}},
                ],
            }
        )
    rows = [{"low": start, "high": end, "count": count} for start, end, count in bins]
    return _svg(title, {"width": WIDTH, "height": 110, "data": _values(rows), "layer": layer})
