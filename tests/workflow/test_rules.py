"""The rules: each says the same things in the same way, and no two jobs share a GPU, or the memory of a machine without."""

import json
import re
import shutil
from pathlib import Path

import forked
import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = {
    name: text
    for file in sorted((ROOT / "rules").glob("*.smk"))
    for name, text in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", file.read_text(encoding="utf-8"), re.M)
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_all_that_is_worth_knowing(name):
    text = RULES[name]
    for keyword in ("output", "log", "benchmark", "conda", "shell"):
        assert f"    {keyword}:\n" in text
    assert f'    threads: plan.threads("{name}")\n' in text
    assert f'    resources:\n        **plan.resources("{name}"),\n        **requests.of("{name}"),\n' in text


def test_no_message_hides_inputs_outputs_and_resources():
    assert {"convert", "sft", "evaluate"} <= RULES.keys()
    assert not [name for name, text in RULES.items() if "message:" in text]


@pytest.fixture
def times(tmp_path, stood_in):
    """Run two data sets up to SFT on four cores and the GPUs named: the (start, end) of each stage's jobs."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    settings = {"sft": {"threads": 1}, "data": {"threads": 1}, "tracking": []}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    targets = [f"results/sft/{name}_4.1v_base/metrics.json" for name in ("slake", "rad")]
    where = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "settings.yaml", "--cores", "4"]
    seconds = {"validate rad": 4, "sft slake": 8}

    def run(gpus: str) -> dict[str, list[tuple[float, float]]]:
        environment = {**stood_in, "SECONDS_OF": json.dumps(seconds), "CUDA_VISIBLE_DEVICES": gpus}
        done = forked.run("snakemake", *where, "--", *targets, folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[tuple[float, float]]] = {}
        for line in (tmp_path / "times.jsonl").read_text().splitlines():
            stage, start, end = json.loads(line)
            found.setdefault(stage, []).append((start, end))
        return found

    return run


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_trainings_run_one_by_one_and_other_stages_beside_them(times):
    found = times("")
    assert len(found["sft"]) == 2 and not overlap(*found["sft"])
    assert any(overlap(sft, other) for sft in found["sft"] for other in found["validate"])


@pytest.mark.slow
def test_as_many_trainings_run_at_once_as_there_are_gpus(times):
    assert overlap(*times("0,1")["sft"])


# Notes how it was called, and runs the command here.
APPTAINER = """#!/bin/bash
[[ $1 == --version ]] && { echo "apptainer version 1.3.6"; exit; }
printf '%s\\n' "$*" >> "$CALLS"
while [[ $1 != *.sif ]]; do shift; done
shift
exec "$@"
"""


@pytest.mark.slow
def test_jobs_run_in_the_image_where_that_is_asked_for(tmp_path, stood_in):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    (tmp_path / "settings.yaml").write_text("{cluster: {container: medvqa.sif}, tracking: []}")
    program = tmp_path / "bin/apptainer"
    program.write_text(APPTAINER)
    program.chmod(0o755)
    target = "results/raw/slake/manifest.json"
    calls = tmp_path / "calls"
    where = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "settings.yaml", "--cores", "1"]
    flags = ["--sdm", "apptainer", "--apptainer-args=--nv", "--", target]
    environment = {**stood_in, "CALLS": str(calls)}
    done = forked.run("snakemake", *where, *flags, folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    called = calls.read_text()
    assert "exec" in called and "--nv" in called and "medvqa.sif bash" in called
    assert "workflow_scripts.download --dataset slake" in called
    assert (tmp_path / target).is_file()
