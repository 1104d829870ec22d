"""Where results lie: in a folder of any name, behind a link, and below the prefix of a workflow that has this as a module."""

import json
import os
import shutil
import sys
from pathlib import Path

import forked
import pytest
from PIL import Image

from workflow_scripts.base import files

ROOT = Path(__file__).parents[2]
RUN = "own_4.1v_base"


@pytest.fixture
def workplace(tmp_path):
    """A folder with a user's table; returns what runs Snakemake there."""
    rows = [{"image": f"{number}.png", "question": "Is it?", "answer": "Yes"} for number in range(20)]
    files.write_jsonl(tmp_path / "mine" / "own.jsonl", rows)
    for number in range(20):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / "mine" / f"{number}.png")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}

    def run(*arguments: str) -> None:
        done = forked.run("snakemake", "--cores", "1", *arguments, folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


SETTINGS = {
    "datasets": {"own": {"reader": "custom", "path": "mine/own.jsonl"}},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
}


def check(results: Path) -> None:
    """The rows have been converted there, and their images are found from there."""
    for split in ("train", "validation", "test"):
        rows = list(files.read_jsonl(results / "data" / RUN / f"{split}.jsonl"))
        assert rows and all((results / "data" / RUN / row["images"][0]).is_file() for row in rows)
    assert {path.name for path in results.iterdir()} == {"benchmarks", "config", "data", "logs", "raw"}


def test_results_may_have_another_name_and_lie_behind_a_link(workplace, tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "disk" / "deep")
    (tmp_path / "config.yaml").write_text(json.dumps(SETTINGS))
    target = f"elsewhere/data/{RUN}/summary.json"
    workplace("--snakefile", str(ROOT / "Snakefile"), "--config", "results=elsewhere", "--", target)
    check(tmp_path / "disk" / "deep")
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_the_workflow_is_a_module_of_another_one(workplace, tmp_path):
    from mlflow import MlflowClient

    (tmp_path / "Snakefile").write_text(
        f"""
module medvqa:
    snakefile: {str(ROOT / "Snakefile")!r}
    prefix: "questions"
    config: {SETTINGS | {"tracking": ["mlflow"]}!r}

use rule * from medvqa as medvqa_*

rule count:
    default_target: True
    input: "questions/results/data/{RUN}/train.jsonl"
    output: "counted.txt"
    shell: "wc -l < {{input}} > {{output}}"
"""
    )
    workplace()
    results = tmp_path / "questions" / "results"
    # The `onstart` of a module is not run; the stage has made the store.
    runs = MlflowClient(f"sqlite:///{results / 'mlflow.db'}").search_runs(["1"])
    assert {run.data.tags.get("stage") for run in runs} == {None, "convert"}
    for path in (*results.glob("*mlflow*"), results / "mlartifacts", results / "tracking"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    check(results)
    assert int((tmp_path / "counted.txt").read_text()) > 10
    assert not (tmp_path / "results").exists()
