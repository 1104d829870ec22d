"""The charts of an evaluation as PNG files, for what cannot show a page: trackers, slides."""

from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.evaluation.table import Evaluation
from workflow_scripts.pages import charts, rendering
from workflow_scripts.pages.evaluation_page import GROUPINGS, confusions

# The light colours of templates/page.html.j2, whose variables stand in the charts of pages.
_COLOURS = {"ink": "#1d2329", "muted": "#66707a", "rule": "#e2dfd8", "accent": "#1f6f78", "warn": "#8f5f00"}
_PAPER = '<rect width="100%" height="100%" fill="#ffffff"/>'  # a tracker may be dark


def write(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Write the scores of all lines, those of the final model by each grouping of several groups, and what it confuses."""
    import vl_convert

    drawn = {"accuracy": rendering.headline_forest(evaluation)}
    groups = evaluation.get("groups", {}).get(evaluation["final_stage"], {})
    for name, title in GROUPINGS.items():
        if len(found := groups.get(name, {})) > 1:
            points = [charts.point(group, found[group]["score"]) for group in found]
            drawn[f"by_{name}"] = charts.forest_plot(title, points, "accuracy, %, with 95 % intervals")
    drawn |= {f"confusion_{kind}_{name}": chart for (name, kind), chart in confusions(evaluation).items()}
    written = []
    for name, chart in drawn.items():
        if chart:
            svg = str(chart).replace(">", f">{_PAPER}", 1)
            for variable, colour in _COLOURS.items():
                svg = svg.replace(f"var(--{variable})", colour)
            with files.replacing(folder / f"{name}.png") as temporary:
                temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))
            written.append(folder / f"{name}.png")
    return written
