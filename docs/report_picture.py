"""Take docs/report.png of the page of a run with made answers: `python -m docs.report_picture`; needs Chromium."""

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks import pages
from benchmarks.browser import browser

PLACE = Path(__file__).with_name("report.png")
SIZE = 1080, 940  # of the window, in pixels
COLOURS = 64  # of the picture: a page has few, and a file in the repository is to be small
QUESTIONS, IMAGES, WORDS = 600, 120, 40


def taken() -> bytes:
    """The upper part of the page as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "evaluation.html"
        pages.write(page, pages.rows(QUESTIONS, IMAGES, WORDS))
        with browser() as tab:
            width, height = SIZE
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            tab.call("Emulation.setScrollbarsHidden", hidden=True)
            tab.open(page)
            tab.wait("document.getElementById('questions')?.dataset.shown")
            shot = base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])
    small = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    PLACE.write_bytes(taken())
