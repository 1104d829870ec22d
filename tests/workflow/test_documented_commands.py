"""The commands of the documents run as they stand, after each other in one folder: first the stages of a run, by hand.

On drawn phantoms and tiny models, which config.yaml says. What no laptop can do is named in EXCUSED and goes as far as it can.
Those of docs/extending.md, which change the package, are run by tests/project/test_architecture.py.
"""

import csv
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from chains import SHORT, check_evaluation
from PIL import Image
from pydicom.data import get_testdata_file

from tests.project.test_docs import ENGLISH, commands, snippets
from workflow_scripts.base import files
from workflow_scripts.configuration import overlay

ROOT = Path(__file__).parents[2]
RUN = "slake_4.1v_thinking"
THEIRS = """
model_name_or_path: zai-org/GLM-4.1V-9B-Thinking
stage: sft
finetuning_type: lora
lora_target: all
dataset: scans
dataset_dir: sets
template: glm4v
"""


@dataclass(frozen=True)
class Excuse:
    """A command that is not run, and why; `instead` is made of its groups and run: "" for nothing."""

    pattern: str
    reason: str
    instead: str = ""


EXCUSED = (
    Excuse(r"make (setup|hooks)", "makes an environment, from the network", r"make --dry-run \1"),
    Excuse(r"make (demo)", "a whole chain, which test_demo.py runs", r"make --dry-run \1"),
    Excuse(r"make ((?:chaos|check|coverage|test)(?:$|[ -].*))", "runs tests", r"make --dry-run \1"),
    Excuse(r"make (mlflow(?:-server)?)", "a server, which others test", r"make --dry-run \1"),
    Excuse(r"\. \.venv/bin/activate", "this is the environment"),
    Excuse(r"git (?:switch|commit) .*", "changes the repository"),
    Excuse(r"pip install .*", "needs the network"),
    Excuse(r"apptainer build .*", "needs Apptainer and the network"),
    Excuse(r"snakemake (--profile profiles/slurm.*)", "needs a cluster", r"snakemake -n \1"),
    Excuse(
        r"snakemake ((?:--config \S+ )?--configfile profiles/presets/.*)", "needs GPUs", r"snakemake -n \1"
    ),
    Excuse(r"snakemake (--config limit=\d+ -- .*)", "another whole chain", r"snakemake --until validate \1"),
    Excuse(r"(grep .*)", "may find nothing: status 1", r"\1 || [ $? = 1 ]"),
    Excuse(r"snakemake (--forcerun .*)", "trains again", r"snakemake -n \1"),
    Excuse(
        r"(python -m workflow_scripts\.(?:preflight|submit)) .*",
        "needs a cluster, that of tests/slurm",
        r"\1 --help",
    ),
    Excuse(r"(python -m workflow_scripts\.serve) .*", "a server, which others test", r"\1 --help"),
    Excuse(
        r"(python -m workflow_scripts\.estimate .*)",
        "counts the rows of published sets, of which config.yaml here has phantoms",
        r"\1 --config published.yaml --results elsewhere",
    ),
    Excuse(r"tensorboard (--logdir \S+)", "a server", r"tensorboard --inspect \1"),
)


def documented() -> list[tuple[str, str]]:
    """(document, command), each command once; that on a file of one's own once for each document."""
    found = {}
    for name in ENGLISH:
        if name != "docs/extending.md":
            for line in commands(name):
                found.setdefault((line, name if "mine.yaml" in line else ""), (name, line))
    return list(found.values())


def stage_by_stage() -> list[str]:
    """The commands of a whole run, from the block that has them."""
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (block,) = (block for block in blocks if "workflow_scripts.sft " in block)
    return block.splitlines()


def runnable(line: str) -> str:
    """The command, or what is run in its place."""
    for excuse in EXCUSED:
        if match := re.fullmatch(excuse.pattern, line):
            return match.expand(excuse.instead)
    return line


COMMANDS = documented()


def test_each_excuse_is_of_a_command():
    unused = [
        excuse.pattern
        for excuse in EXCUSED
        if not any(re.fullmatch(excuse.pattern, line) for _, line in COMMANDS)
    ]
    assert unused == []


@pytest.fixture(scope="module")
def workspace(start, preloaded, tmp_path_factory):
    """(a clone of the project with a configuration of its own, what the commands of a whole run there have said)."""
    programs = tmp_path_factory.mktemp("programs")
    python = programs / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] && exec {preloaded} "$@"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    workflow = start({}, python=python)
    folder = workflow.folder
    settings = overlay.merge(
        files.read_yaml(ROOT / "config.yaml"), {**SHORT, "tracking": ["mlflow", "tensorboard"]}
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in {line.partition("/")[0] for line in listed.stdout.splitlines()} - {"config.yaml", "tests"}:
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "config.yaml", folder / "published.yaml")
    said = {line: workflow.shell(runnable(line)) for line in stage_by_stage()}
    check_evaluation(workflow, RUN)
    prepare(workflow)
    return workflow, said


def prepare(workflow) -> None:
    """The files that the documents take for those of the reader."""
    folder = workflow.folder
    (folder / "theirs.yaml").write_text(THEIRS)
    (folder / "my").mkdir()
    with open(folder / "my/table.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "q", "a"])
        for number in range(20):
            Image.new("L", (64, 64), 10 * number).save(folder / f"my/{number}.png")
            table.writerow([f"{number}.png", "Is the picture dark?", "yes" if number < 10 else "no"])
    shutil.copy(get_testdata_file("CT_small.dcm"), folder / "scan.dcm")
    shutil.copytree(workflow / f"sft/{RUN}", folder / "saves/lora")
    for name in ("metrics.json", "training.json"):
        (folder / "saves/lora" / name).unlink()
    evaluation = files.read_object(workflow / f"eval/{RUN}.json")
    files.write_json(workflow / "eval/slake_4.1v_base.json", {**evaluation, "run": "slake_4.1v_base"})
    rows = files.read_jsonl(workflow / f"data/{RUN}/test.jsonl")
    answers = [{"question_id": row["id"], "prompt": row["question"], "text": row["answer"]} for row in rows]
    files.write_jsonl(folder / "answers.jsonl", answers)


# What a document tells to write before its commands.
WRITTEN = {"docs/own-data.md": ("mine.yaml", snippets("docs/own-data.md")[0])}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_a_command_of_the_documents_runs(workspace, name, line):
    workflow, of_stages = workspace
    if name in WRITTEN:
        path, text = WRITTEN[name]
        (workflow.folder / path).write_text(text)
    done = of_stages.get(line) or workflow.shell(runnable(line))
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said, f"{name}: {runnable(line)}\n{said[-3000:]}"
