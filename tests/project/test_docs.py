"""Documents link to what is there, and both READMEs give the same commands, which exist."""

import itertools
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from workflow_scripts.base import files
from workflow_scripts.configuration import overlay, reading
from workflow_scripts.configuration.settings import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


def test_both_readmes_give_the_same_commands():
    assert commands("README.md") == commands("README.zh.md") and "make demo" in commands("README.md")


def test_the_commands_exist():
    modules = re.findall(r"python -m ([\w.]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert modules and all(find_spec(module) for module in modules)
    targets = re.findall(r"^make (\w+)", "\n".join(commands("README.md")), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)


def test_the_commands_have_the_flags_that_are_given_them():
    flags: dict[str, set[str]] = {}
    for line in commands("README.md"):
        if named := re.match(r"python -m (workflow_scripts\.\w+)", line):
            flags.setdefault(named[1], set()).update(re.findall(r"--\w+", line))
    assert len(flags) >= 10
    for module, given in flags.items():
        answer = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert given <= set(re.findall(r"--\w+", answer.stdout)), module


def snippets(name: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_configuration_snippets_are_valid_and_the_same_in_both_readmes():
    assert snippets("README.md") == snippets("README.zh.md") != []
    raw = files.read_yaml(ROOT / "config.yaml")
    for snippet in snippets("README.md"):
        reading.validate(overlay.merge(raw, yaml.safe_load(snippet)), where="README.md")


BILINGUAL = [
    page.with_name(page.name.replace(".zh.md", ".md")) for page in PAGES if page.name.endswith(".zh.md")
]


@pytest.mark.parametrize("page", BILINGUAL, ids=lambda page: page.name)
def test_both_languages_have_the_same_headings_lists_tables_and_blocks(page):
    """Their order and their kind; what a `#` says within a block of commands is a remark, in either language."""
    assert outline(page) == outline(page.with_suffix(".zh.md"))


def outline(page: Path) -> list[str]:
    """What the lines of a page are: headings by their level, items, rows, and blocks with all that is in them."""
    found, block = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            block = not block
            found.append(line)
        elif block:
            found.append(re.sub(r"\s*#\s.*", "", line))
        elif mark := re.match(r"#+ |- |\d+\. |\||!\[", line):
            found.append(mark[0])
    return found


CHINESE = [page.with_suffix(".zh.md") for page in BILINGUAL]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def wraps(text: str) -> list[str]:
    """The lines that go on in the next one instead of ending a paragraph, an item or a row."""
    begins = re.compile(r"\s*(?:$|#|\||[-*] |\d+\. |!\[|>)")
    pairs = itertools.pairwise(text.splitlines())
    return [line for line, after in pairs if line.strip() and line[0] not in "#|" and not begins.match(after)]


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_no_chinese_paragraph_is_wrapped(page):
    """A wrap between Chinese characters shows as a space; so a paragraph or an item is one line."""
    assert wraps(prose(page)) == []


def test_a_wrap_is_found():
    assert wraps("一段，\n没有完。\n\n1. 一项\n2. 没有\n   完\n") == ["一段，", "2. 没有"]


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_chinese_has_its_own_punctuation_and_a_space_beside_latin_words(page):
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]*`", "`", prose(page)))
    letter = "[\u3400-\u9fff]"
    assert re.findall(rf".{{0,8}}{letter}[,.;:!?(].{{0,8}}", text) == []
    assert re.findall(rf".{{0,8}}(?:{letter}[A-Za-z0-9`]|[A-Za-z0-9`]{letter}).{{0,8}}", text) == []


def test_keys_named_in_the_readmes_exist():
    """Both READMEs name the same keys of the configuration, such as `sft.gpus`, and there are such keys."""
    sections = "sft|dpo|data|preferences|evaluation"
    named = [
        set(re.findall(rf"`((?:{sections})\.\w+)", (ROOT / name).read_text(encoding="utf-8")))
        for name in ("README.md", "README.zh.md")
    ]
    assert named[0] == named[1] != set()
    defaults = Config()
    for key in named[0]:
        section, field = key.split(".")
        assert hasattr(getattr(defaults, section), field), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_path_of_one_machine_and_nothing_left_to_fill_in(page):
    # Put together here, so that a search for these words finds documents only.
    words = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "TO" + "DO", "FIX" + "ME", "X" * 3]
    text = page.read_text(encoding="utf-8")
    assert [word for word in words if word in text] == []


def test_the_citation_names_what_a_citation_needs():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    for entry in [citation, *citation["references"]]:
        assert entry["title"] and entry["authors"] and entry["type"]
