"""The wheel in an environment of its own, away from the checkout: the command, what it carries, what it says it lacks."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import workflow_scripts
from workflow_scripts.base import versions

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = """
datasets: {rad: {reader: rad, embedded: 10}}
models: {4.1v: {base: {embedded: true}}}
tracking: []
"""


def tracked(*names: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git has."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    program = Path(sys.executable).with_name("uv")
    command = [
        program,
        "build",
        "--quiet",
        "--wheel",
        "--offline",
        "--no-build-isolation",
        "--out-dir",
        "dist",
    ]
    subprocess.run([*command, "--python", sys.executable], cwd=folder, check=True)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def medvqa(wheel, tmp_path_factory):
    """Calls the installed command in an empty folder, where this checkout is unknown."""
    place = tmp_path_factory.mktemp("place")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    program, python = Path(sys.executable).with_name("uv"), place / "venv" / "bin" / "python"
    command = [program, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(command, check=True)
    site = next((place / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = place / "work"
    folder.mkdir()
    foreign = ("PYTHONPATH", "MEDVQA_CONFIG", "SNAKEMAKE_PROFILE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [place / "venv" / "bin" / "medvqa", *arguments],
            cwd=folder,
            env={**environment, "HF_HUB_OFFLINE": "1", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    call.folder = folder
    return call


def test_the_wheel_has_every_file_of_the_package_and_of_the_workflow(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shared = {name.split("/data/share/medvqa/")[1] for name in names if "/data/share/medvqa/" in name}
    assert set(tracked("workflow_scripts")) <= set(names)
    workflow = tracked(
        "Snakefile",
        "rules",
        "envs",
        "profiles/default",
        "profiles/presets",
        "profiles/slurm",
        "docs/captions",
    )
    assert {*workflow, "config.yaml", "docs/report.rst"} <= shared


def test_the_version_stands_in_one_place(medvqa):
    assert medvqa("--version").stdout == f"medvqa {workflow_scripts.__version__}\n"
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CITATION.cff"))
    assert f'"{workflow_scripts.__version__}"' not in text


def test_help_names_every_command_at_once(medvqa):
    shown = medvqa("--help", PYTHONPROFILEIMPORTTIME="1")
    said, imports = shown.stdout, shown.stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.splitlines()}
    assert "workflow_scripts" in loaded and not loaded & {"numpy", "pydantic", "snakemake", "torch", "yaml"}
    files = {path.stem for path in (ROOT / "workflow_scripts").glob("[!_]*.py")} | {"tracking"}
    assert set(re.findall(r"^  (\w+)  ", said, re.MULTILINE)) >= files


def test_a_command_is_called_by_its_own_name(medvqa):
    assert medvqa("sft", "--help").stdout.startswith("usage: medvqa sft ")
    wrong = medvqa("validat")
    assert wrong.returncode == 2 and "did you mean 'validate'?" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["validate", "--dataset", "rad", "--model_version", "4.1v", "--mode", "base"], "config.yaml: not in this folder"),
        (["workflow", "-n"], "config.yaml: not in this folder"),
        (["demo", "results/eval/rad_4.1v_base.json"], "profiles/demo: not in this folder"),
    ],
)  # fmt: skip
def test_what_needs_a_folder_of_its_own_says_so(medvqa, arguments, said):
    (medvqa.folder / "config.yaml").unlink(missing_ok=True)
    answer = medvqa(*arguments)
    assert answer.returncode == 1 and answer.stderr.startswith(f"error: {said}")
    assert answer.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_new_folder_gets_its_configuration_and_plans_the_workflow(medvqa):
    assert medvqa("config", "--write").returncode == 0
    answer = medvqa("workflow", "-n", "results/eval/slake_4.1v_base.json")
    assert re.search(r"^evaluate +1$", answer.stdout, re.MULTILINE), answer.stderr


@pytest.mark.slow
def test_stages_find_the_stand_ins_templates_and_terms_of_the_wheel(medvqa):
    (medvqa.folder / "config.yaml").write_text(EMBEDDED)
    run = ["--dataset", "rad", "--model_version", "4.1v", "--mode", "base"]
    for command in (["download", *run[:2]], ["download", *run[2:]], ["convert", *run], ["validate", *run]):
        answer = medvqa(*command)
        assert answer.returncode == 0, answer.stderr
    assert (medvqa.folder / "results/data/rad_4.1v_base/validation.html").is_file()


def test_the_changelog_dates_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## \[{re.escape(workflow_scripts.__version__)}\] - \d{{4}}-\d\d-\d\d$"
    assert re.search(heading, text, re.MULTILINE)


def test_the_changelog_says_where_scores_may_shift():
    """Whoever raises the number of a stage's results says there what other scores may come of it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    shifts = "\n".join(re.findall(r"^### Scores may shift\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    raised = {f"`{stage}` {n}" for stage, last in versions.RESULTS.items() for n in range(2, last + 1)}
    assert [entry for entry in sorted(raised) if entry not in shifts] == []
