"""The commands as a person meets them: quick to answer, and clear when something is wrong."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from workflow_scripts.base.paths import STAGES

ROOT = Path(__file__).resolve().parents[2]
BESIDES = (
    "crate",
    "estimate",
    "migrate",
    "preflight",
    "reproduce",
    "run_experiments",
    "score",
    "status",
    "submit",
)


ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": str(ROOT),
}


def stage(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return forked.run(f"workflow_scripts.{name}", *arguments, folder=ROOT, environment=ENVIRONMENT)


@pytest.fixture
def snakemake(tmp_path):
    """Dry runs of the whole matrix in an empty folder."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    command = ["snakemake", "--dry-run", "--snakefile", str(ROOT / "Snakefile")]
    return lambda *arguments: forked.run(*command, *arguments, folder=tmp_path, environment=ENVIRONMENT)


def test_what_answers_at_once_imports_nothing_heavy():
    """--help and a dry run are quick as long as neither pays for these."""
    heavy = {"torch", "torchvision", "transformers", "trl", "peft", "datasets", "mlflow", "pandas", "pyarrow"}
    heavy.add("huggingface_hub")  # reads as it is imported whether it may report what it is used for
    names = [*STAGES, *BESIDES, "configuration.plan", "__main__"]
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(f"workflow_scripts.{{name}}")
    if found := {heavy} & set(sys.modules):
        sys.exit(f"{{name}} imports {{found}}")
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", [*STAGES, *BESIDES])
def test_help_names_the_flags(name):
    answer = stage(name, "--help")
    assert answer.returncode == 0 and "--log_level" in answer.stdout and "--debug" in answer.stdout


def test_a_dry_run_covers_the_whole_matrix(snakemake):
    assert re.search(r"^evaluate +32$", snakemake().stdout, re.M)


def test_a_dry_run_plans_the_chosen_runs_each_with_its_own_resources(snakemake, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "datasets: {rad: null, combined: null}\n"
        "runs: [{dataset: slake, model_version: 4.1v, mode: base},\n"
        "  {dataset: slake, model_version: 4.5v, mode: base, sft: {gpus: 8, nodes: 2, strategy: zero3, threads: 2}}]\n"
    )
    said = snakemake("--configfile", "config.yaml", "mine.yaml", "--cores", "8").stdout
    assert re.search(r"^evaluate +2$", said, re.M) and "rad" not in said
    jobs = {
        match[1]: match[2].split(", ")
        for match in re.finditer(
            r"^rule sft:(?:\n    .*)*?\n    wildcards: .*model_version=(\S+),.*(?:\n    .*)*?\n    resources: (.*)",
            said,
            re.M,
        )
    }
    assert {"gpu=1", "cpus_per_gpu=8"} <= set(jobs["4.1v"]) and "nodes=2" not in jobs["4.1v"]
    assert {"nodes=2", "gres=gpu:8", "cpus_per_gpu=2"} <= set(jobs["4.5v"]) and "gpu=1" not in jobs["4.5v"]


def test_every_error_of_a_configuration_is_printed_before_any_job(snakemake):
    answer = snakemake("--config", "seed=-1", "sft={epochz: 3, method: lorra}", "evaluation={gpus: many}")
    said = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert "4 error(s) in the configuration" in said
    assert "seed: -1" in said
    assert "sft.epochz: 'epochz' is unknown" in said and "did you mean 'epochs'?" in said
    assert "sft.method: 'lorra' is unknown (known: lora, full); did you mean 'lora'?" in said
    assert "evaluation.gpus: 'many'" in said
    assert "rule convert" not in said and "Traceback" not in said


def test_exponents_are_numbers_and_a_limited_run_lies_apart(snakemake):
    answer = snakemake(
        "--config", "sft={learning_rate: 1e-5}", "limit=32", "runs=[{dataset: rad, mode: base}]"
    )
    assert answer.returncode == 0
    outputs = re.findall(r"^    output: (\S+?)[,\n]", answer.stdout, re.M)
    apart = [path.startswith("results/limited_32/") for path in outputs]
    fetched = [path.startswith(("results/raw/", "results/models/")) for path in outputs]
    assert len(outputs) > 10 and [one != other for one, other in zip(apart, fetched, strict=True)] == [
        True
    ] * len(outputs)


def test_an_unknown_dataset_is_one_line():
    answer = stage("convert", "--dataset", "slakee", "--model_version", "4.1v", "--mode", "thinking")
    assert answer.returncode != 0
    assert answer.stderr.startswith("error: --dataset: 'slakee' is unknown")
    assert answer.stderr.endswith("did you mean 'slake'?\n") and answer.stderr.count("\n") == 1


def test_a_run_that_the_configuration_does_not_know_starts_nothing(snakemake):
    answer = snakemake("results/eval/slake_9.9v_thinking.json")
    assert answer.returncode != 0
    assert "MissingRuleException" in answer.stdout + answer.stderr
