"""Small charts as inline SVG; colours come from the page's style sheet, so they follow light and dark."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

WIDTH = 360
_LEFT, _RIGHT = 44, 12


def _svg(height: float, title: str, parts: Iterable[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: object, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def line_chart(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A curve of (x, y), such as loss by step; points that are not finite are left out."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return Markup("")
    top, bottom = 10, 150
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(0.0, *(y for _, y in points)), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1)
        up = (y - low_y) / ((high_y - low_y) or 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), bottom - up * (bottom - top)

    parts = []
    for share in (0, 0.5, 1):
        value = low_y + share * (high_y - low_y)
        _, y = place(low_x, value)
        parts += [_line("grid", _LEFT, y, WIDTH - _RIGHT, y), _text(_LEFT - 6, y + 4, f"{value:.3g}", "end")]
    parts.append(_text(_LEFT, bottom + 18, f"step {low_x:g}"))
    if high_x > low_x:
        parts.append(_text(WIDTH - _RIGHT, bottom + 18, f"step {high_x:g}", "end"))
    places = [place(x, y) for x, y in points]
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    x, y = places[-1]
    parts.append(f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return _svg(bottom + 26, title, parts)


def accuracy_bars(title: str, bars: Sequence[tuple[str, str, float]], floor: float | None) -> Markup:
    """Horizontal bars of (css class, label, share of 0..1), with the floor as a dashed line across them."""
    left, step = 108, 26
    scale = WIDTH - left - 44
    parts = []
    for row, (kind, label, share) in enumerate(bars):
        y = row * step + 4
        parts.append(_text(left - 8, y + 13, label, "end"))
        parts.append(f'<rect class="track" x="{left}" y="{y}" width="{scale}" height="18" rx="2"/>')
        parts.append(
            f'<rect class="bar {escape(kind)}" x="{left}" y="{y}" width="{share * scale:.1f}" height="18" rx="2"/>'
        )
        parts.append(_text(WIDTH, y + 13, f"{100 * share:.1f}", "end"))
    height = len(bars) * step + 6
    if floor is not None:
        x = left + floor * scale
        parts.append(_line("floor", x, 0, x, height))
        parts.append(_text(x, height + 13, f"floor {100 * floor:.1f} %", "middle"))
        height += 20
    return _svg(height, title, parts)


def histogram(title: str, bins: Sequence[tuple[float, float, int]], limit: float | None) -> Markup:
    """Upright bars of (low, high, count) on one axis, with a dashed line at `limit` where it is in sight."""
    if not bins:
        return Markup("")
    top, bottom = 18, 120
    low, high = bins[0][0], bins[-1][1]
    tallest = max(1, *(count for _, _, count in bins))

    def across(value: float) -> float:
        return _RIGHT + (value - low) / ((high - low) or 1) * (WIDTH - 2 * _RIGHT)

    parts = [_line("grid", _RIGHT, bottom, WIDTH - _RIGHT, bottom)]
    for start, end, count in bins:
        height = count / tallest * (bottom - top)
        width = max(1.0, across(end) - across(start) - 1)
        parts.append(
            f'<rect class="bar" x="{across(start):.1f}" y="{bottom - height:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}"><title>{start:g} to {end:g}: {count:,}</title></rect>'
        )
    parts += [_text(_RIGHT, bottom + 16, f"{low:g}"), _text(WIDTH - _RIGHT, bottom + 16, f"{high:g}", "end")]
    if limit is not None and low <= limit <= high:
        parts.append(_line("floor", across(limit), top, across(limit), bottom))
        anchor = "end" if across(limit) > WIDTH / 2 else "start"
        parts.append(_text(across(limit), top - 6, f"limit {limit:g}", anchor))
    return _svg(bottom + 24, title, parts)
