"""Write the site into a folder: `python docs/site.py [FOLDER]`, which `make docs` calls.

Pages that lie above docs/ are put beside the others, and every link is turned to where its page lies on the site. A link
that leads nowhere, or a page that the navigation lacks, ends it with an error.
"""

import logging
import os
import re
import sys
import tempfile
from pathlib import Path, PurePosixPath

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).parents[1]
# Of the pages that lie elsewhere, the place on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CONTRIBUTING.md": "contributing.md",
    "CONTRIBUTING.zh.md": "contributing.zh.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/thoughts.md": "thoughts.md",
    "benchmarks/batches.md": "batches.md",
}
FILES = ("CITATION.cff", "LICENSE", "config.yaml")  # that pages link to and that are no pages
PICTURES = ("*.svg", "*.png")
# The way to the other language, which the site has in its head.
OTHER_LANGUAGE = re.compile(r"\[(?:中文|中文版|English)\]\([^)]*\)(?: · )?")
LINK = re.compile(r"(\]\()([^)#\s]+)")


def pages() -> dict[str, str]:
    """The place on the site of each page, by its path in the repository."""
    own = {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    return own | ELSEWHERE


def linked(text: str, source: str) -> str:
    """The page `source` with its links as the site has them; a link to a language's page is to the page in any."""
    places = pages() | {name: name for name in FILES}

    def there(match: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", match[2]):
            return match[0]
        path = os.path.normpath(PurePosixPath(source).parent / match[2])
        return match[1] + places.get(path, path.removeprefix("docs/")).replace(".zh.md", ".md")

    return LINK.sub(there, OTHER_LANGUAGE.sub("", text))


def assemble(folder: Path) -> None:
    """Put all pages, pictures and files of the site into `folder`."""
    for source, place in pages().items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (folder / place).write_text(linked(text, source), encoding="utf-8")
    others = [path for pattern in PICTURES for path in (ROOT / "docs").glob(pattern)]
    for path in [*others, *(ROOT / name for name in FILES)]:
        (folder / path.name).write_bytes(path.read_bytes())


def write(folder: Path) -> None:
    """Write the site; mkdocs.exceptions.Abort where anything is wrong with it."""
    with tempfile.TemporaryDirectory() as sources:
        assemble(Path(sources))
        build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=sources, site_dir=str(folder), strict=True))


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    try:
        write(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site"))
    except Abort as error:
        sys.exit(f"error: {error}")
