"""Documents link to what is there, their commands and settings are ones that there are, and both languages say the same."""

import argparse
import itertools
import re
import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from snakemake import cli as snakemake_cli

from workflow_scripts.base import files
from workflow_scripts.configuration import flags, overlay, reading
from workflow_scripts.configuration.settings import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    lines = [
        line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


def test_both_readmes_give_the_same_commands():
    assert commands("README.md") == commands("README.zh.md") and "make demo" in commands("README.md")


# The worked examples of these are run by tests of their own.
EXAMPLES = ("CONTRIBUTING.md", "docs/extending.md")
ENGLISH = [str(page.relative_to(ROOT)) for page in PAGES if not page.name.endswith(".zh.md")]
COMMANDS = sorted({line for name in ENGLISH if name not in EXAMPLES for line in commands(name)})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_there_is_with_flags_that_it_takes(line, monkeypatch):
    """Each is parsed by the program's own parser; none is run."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"] or words[0] == "medvqa":
        name, *arguments = words[2:] if words[0] == "python" else [f"workflow_scripts.{words[1]}", *words[2:]]
        parses(name, arguments, monkeypatch)
    elif words[0] == "snakemake":
        parsed = snakemake_cli.get_argument_parser().parse_args(words[1:])
        given = [*(parsed.configfile or []), *(parsed.profile or [])]
        own = [path for path in map(str, given) if path not in ("mine.yaml", "config.yaml")]
        assert [path for path in own if not (ROOT / path).exists()] == []
        assert all(
            re.match(r"results/(limited_\d+/)?(eval|data|export)/", target) for target in parsed.targets
        )
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    else:
        assert line.startswith(OF_OTHERS), "name the program among those of others, if it is one"


# What begins the commands of other programs, and of the shell.
OF_OTHERS = (
    ". .venv/bin/activate",
    "apptainer build ",
    "grep ",
    "mlflow ui ",
    "tensorboard ",
    "pip install ",
    "python -c ",
    "vllm serve ",
)


class Parsed(Exception):
    """The flags were understood."""


def parses(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command `name` parse its flags, and stop it there."""

    def stop(self: argparse.ArgumentParser, given: list[str]) -> None:
        options, rest = self.parse_known_args(given)
        assert rest == [], f"unknown: {rest}"
        raise Parsed(options)

    spec = find_spec(name)
    assert spec, f"there is no {name}"
    module = import_module(f"{name}.__main__" if spec.submodule_search_locations else name)
    if not hasattr(module, "main"):  # a script that takes no flags
        assert arguments == []
        return
    if name == "workflow_scripts.workflow":  # all of its flags are Snakemake's
        snakemake_cli.get_argument_parser().parse_args(arguments)
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(flags, "model_folder", Path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        module.main(arguments) if module.main.__code__.co_argcount else module.main()


def test_a_command_that_is_not_there_is_found(monkeypatch):
    with pytest.raises(AssertionError, match="there is no"):
        parses("workflow_scripts.tomorrow", [], monkeypatch)
    with pytest.raises(AssertionError, match="unknown: .*--colour"):
        parses("workflow_scripts.report", ["--colour"], monkeypatch)


def test_the_documents_show_every_command():
    """But for the one that only `make demo` calls."""
    shown = {
        match[1]
        for name in ENGLISH
        for match in re.finditer(r"workflow_scripts\.(\w+)", (ROOT / name).read_text("utf-8"))
    }
    shown |= {
        match[1]
        for name in ENGLISH
        for match in re.finditer(r"medvqa (\w+)", (ROOT / name).read_text("utf-8"))
    }
    assert {path.stem for path in (ROOT / "workflow_scripts").glob("[!_]*.py")} - shown == {"demo"}


def snippets(name: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


SNIPPETS = [
    pytest.param(snippet, id=f"{name}-{number}")
    for name in ENGLISH
    if name not in EXAMPLES
    for number, snippet in enumerate(snippets(name))
    if set(yaml.safe_load(snippet)) <= Config.model_fields.keys()  # and no file of terms
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_configuration_snippets_are_valid(snippet):
    raw = files.read_yaml(ROOT / "config.yaml")
    reading.validate(overlay.merge(raw, yaml.safe_load(snippet)), where="here")


def test_the_snippets_of_configurations_are_found():
    assert len(SNIPPETS) >= 10 and len(COMMANDS) >= 25


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


@pytest.mark.parametrize("page", BILINGUAL, ids=lambda page: page.name)
def test_named_keys_exist_and_are_the_same_in_both_languages(page):
    """Keys of the configuration such as `sft.gpus`."""
    sections = "sft|dpo|data|preferences|evaluation"
    named = [
        set(re.findall(rf"`((?:{sections})\.(?!py`)\w+)(?=[`:])", found.read_text(encoding="utf-8")))
        for found in (page, page.with_suffix(".zh.md"))
    ]
    assert named[0] == named[1]
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
