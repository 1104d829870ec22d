"""The site: it is written without a network, every link of it leads somewhere, and what scripts make of it is as they make it."""

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.base import files
from workflow_scripts.training.engine import tree

ROOT = Path(__file__).resolve().parents[2]
NEW = {
    "first-run",
    "own-data",
    "coming-from",
    "running",
    "configuration",
    "troubleshooting",
    "reproducing",
    "reading",
    "engine",
    "faq",
}


class Links(HTMLParser):
    """What a page loads, where its links lead, and the places in it that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.leads.append(found["href"])
        elif found.get("src"):
            self.loads.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "dns-prefetch"):
            self.loads.append(found["href"])


def write(script: Path, site: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, script, site], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = write(ROOT / "docs" / "site.py", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Links]:
    return {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_there_in_both_languages(site):
    names = {path.stem for path in site.glob("*.html")} - {"404"}
    assert names >= NEW | {
        "index",
        "contributing",
        "changelog",
        "benchmarks",
        "architecture",
        "data",
        "protocols",
    }
    assert {path.stem for path in (site / "zh").glob("*.html")} == names
    assert "从零开始" in (site / "zh" / "first-run.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_elsewhere(pages):
    assert {load for page in pages.values() for load in page.loads if re.match(r"[a-z]+:|//", load)} == set()
    for path, page in pages.items():
        assert [load for load in page.loads if not (path.parent / load.partition("?")[0]).is_file()] == [], (
            path.name
        )
    styles = "".join(path.read_text("utf-8") for path in next(iter(pages)).parent.rglob("*.css"))
    assert "fonts.googleapis" not in styles and "fonts.gstatic" not in styles


def test_every_link_leads_to_a_page_and_to_a_place_in_it(pages):
    lost = []
    for path, page in pages.items():
        for link in page.leads:
            target, place = urldefrag(link)
            if re.match(r"[a-z]+:", target) or (found := (path.parent / unquote(target)).resolve()).is_dir():
                continue
            found = found if target else path
            if not found.is_file() or (
                place and found in pages and unquote(place) not in pages[found].places
            ):
                lost.append(f"{path.name}: {link}")
    assert lost == []


@pytest.mark.slow
def test_a_link_that_leads_nowhere_ends_it(tmp_path):
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / name for name in ("mkdocs.yml", "CITATION.cff", "LICENSE", "config.yaml")),
    ]:
        shutil.copy(path, tmp_path)
    with (tmp_path / "docs" / "faq.md").open("a", encoding="utf-8") as page:
        page.write("\n[there](data.md#no-such-heading)\n")
    done = write(tmp_path / "docs" / "site.py", tmp_path / "site")
    assert done.returncode and "no-such-heading" in done.stderr


@pytest.mark.parametrize(("language", "name"), [(0, "engine.svg"), (1, "engine.zh.svg")])
def test_the_drawing_of_the_engine_is_what_its_script_draws(language, name):
    script = runpy.run_path(str(ROOT / "docs" / "engine.py"))
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == script["drawing"](language), (
        "run python docs/engine.py"
    )


def test_the_tree_of_the_drawing_is_what_the_engine_grows():
    script = runpy.run_path(str(ROOT / "docs" / "engine.py"))
    nodes, of_tokens = script["NODES"], script["tokens"]()
    leaves = [number for number in range(len(nodes)) if all(node.parent != number for node in nodes)]
    rows = [
        [place for place, number in enumerate(of_tokens) if number in script["path"](leaf)] for leaf in leaves
    ]
    paths = [
        tree.Path(np.array(row), np.array(row), np.tile(np.arange(len(row)), (3, 1)), tail=0) for row in rows
    ]
    grown = tree.grow(paths)
    assert grown.ids.tolist() == list(range(len(of_tokens))) and grown.ends.tolist() == script["ends"]()
    assert grown.positions[0].tolist() == script["positions"]()
    assert [place.tolist() for place in grown.places] == rows


@pytest.mark.parametrize(("language", "name"), [(0, "configuration.md"), (1, "configuration.zh.md")])
def test_the_page_of_keys_is_what_its_script_writes_and_has_every_key(language, name):
    script = importlib.import_module("docs.configuration")
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == script.page(language), "run python -m docs.configuration"
    schema = files.read_json(ROOT / "config.schema.json")
    assert set(script.SECTIONS.values()) == schema["$defs"].keys(), "every section has a table"
    for part in (schema, *schema["$defs"].values()):
        assert [key for key in part["properties"] if f"| `{key}` |" not in text] == []


def test_the_picture_of_the_report_is_small():
    path = ROOT / "docs" / "report.png"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.size == importlib.import_module("docs.report_picture").SIZE


def test_a_session_is_recorded_and_drawn(tmp_path):
    """In a process of its own, for it takes the terminal."""
    place, script = tmp_path / "demo.cast", tmp_path / "session"
    script.write_text("echo one; printf '50 %%\\r100 %% <all>\\n'; pwd; exit 3\n")
    code = "import sys; from pathlib import Path; from docs import demo_session as session; "
    code += f"sys.exit(session.main(['sh', '{script}'], Path('{place}')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    head, *events = map(json.loads, place.read_text(encoding="utf-8").splitlines())
    assert head["version"] == 2 and head["width"] == 100 and all(kind == "o" for _, kind, _ in events)
    times = [when for when, *_ in events]
    assert times == sorted(times) and times[-1] < 10
    drawn = place.with_suffix(".svg").read_text(encoding="utf-8")
    lines = re.findall(r"<text [^>]*>([^<]*)</text>", drawn)
    assert lines[0].startswith("$ sh ") and lines[1:] == ["one", "100 % &lt;all&gt;", "."]
    ElementTree.fromstring(drawn)


def test_what_was_printed_before_becomes_a_session(tmp_path):
    (tmp_path / "said.txt").write_text("7 stages\n1/7  download\n")
    session = importlib.import_module("docs.demo_session")
    assert session.main(["--text", str(tmp_path / "said.txt"), "make", "demo"], tmp_path / "demo.cast") == 0
    assert session.screen((tmp_path / "demo.cast").read_text("utf-8")) == [
        "$ make demo",
        "7 stages",
        "1/7  download",
    ]
