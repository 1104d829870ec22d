"""Imports run one way, and a file's place and name say what it is."""

import ast
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workflow_scripts"

# File names that several rooms share, each with the one thing that it means in all of them, beside those of a command
# and its stage.
SHARED_NAMES = {
    "__init__": "what a room is for",
    "__main__": "what is called by the name of its package",
    "dpo": "direct preference optimisation: command, stage and trainer",
    "sft": "supervised fine-tuning: command, stage and trainer",
}


def contracts(folder: Path) -> subprocess.CompletedProcess:
    """What import-linter says of the package in `folder`, by the contracts of the project."""
    command = [
        Path(sys.executable).with_name("lint-imports"),
        "--no-cache",
        "--no-logo",
        ROOT / "pyproject.toml",
    ]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=wide, capture_output=True, text=True, check=False)


def test_each_room_imports_only_what_lies_below_it():
    answer = contracts(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("base.files", "workflow_scripts.datasets.records"),
        ("datasets.records", "torch"),
        ("pages.charts", "workflow_scripts.tracking.experiment"),
        ("tracking.experiment", "workflow_scripts.pages.charts"),
        ("training.engine.tree", "workflow_scripts.base.files"),
        ("training.engine.tree", "workflow_scripts.training.checkpoints"),
        ("stages.convert", "workflow_scripts.convert"),
        ("convert", "workflow_scripts.validate"),
    ],
)
def test_a_forbidden_import_is_found(copy, module, forbidden):
    with (copy / PACKAGE.name / module.replace(".", "/")).with_suffix(".py").open("a") as file:
        file.write(f"\nimport {forbidden}\n")
    answer = contracts(copy)
    assert answer.returncode == 1 and f"workflow_scripts.{module} -> {forbidden} (l." in answer.stdout, (
        answer.stdout
    )


def test_a_room_without_a_place_in_the_order_is_found(copy):
    (copy / PACKAGE.name / "attic").mkdir()
    (copy / PACKAGE.name / "attic" / "__init__.py").touch()
    answer = contracts(copy)
    assert answer.returncode == 1 and "workflow_scripts.attic" in answer.stdout, answer.stdout


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_the_top_of_the_package_holds_commands_alone(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body, [])), "a command says what it does"
    defined = [node for node in body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    *others, last = defined
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    assert {name for node in others for name in names(node) if not name.startswith("_")} == {"main"}


def names(node: ast.stmt) -> list[str]:
    """What a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [
        name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    ]


def test_one_file_name_means_one_thing():
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        places[path.stem].append(str(path.relative_to(PACKAGE)))
    several = {
        name: sorted(paths)
        for name, paths in places.items()
        if len(paths) > 1 and set(paths) != {f"{name}.py", f"stages/{name}.py"}
    }
    assert set(several) == set(SHARED_NAMES), several
