"""One name means one thing: no two classes share one, and the name of a file stands in one place."""

import ast
import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "workflow_scripts"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

# There names are those that others gave their files, which we draw in one module and read in another.
OF_OTHERS = {Path("datasets/phantoms"), Path("datasets/readers")}


def shared(places: dict[str, set[Path]]) -> dict[str, list[str]]:
    return {name: sorted(map(str, found)) for name, found in places.items() if len(found) > 1}


def test_no_two_classes_share_a_name():
    places = defaultdict(set)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(path)
    assert not shared(places)


def test_the_name_of_a_file_stands_in_one_place():
    places = defaultdict(set)
    for path, tree in TREES.items():
        if path.parent in OF_OTHERS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and re.fullmatch(
                r"[\w-]+\.(json|jsonl|html|db)", str(node.value)
            ):
                places[node.value].add(path)
    assert places["metrics.json"] == {Path("base/paths.py")}
    assert not shared(places)


def test_no_two_files_of_tests_share_a_name():
    """pytest would collect none of them, together."""
    places = defaultdict(set)
    for path in Path(__file__).parents[1].rglob("*.py"):
        if path.name not in ("conftest.py", "__init__.py"):
            places[path.name].add(path)
    assert not shared(places)
