"""What the workflow's jobs depend on: a change reruns what it affects, and nothing else."""

from types import SimpleNamespace

import pytest

from workflow_scripts.configuration.plan import Plan

SLAKE = {"reader": "slake", "repository": "a/b", "revision": "c"}
DATASETS = {
    "slake": SLAKE,
    "rad": {"reader": "rad", "embedded": 10},
    "both": {"members": ["slake", "rad"]},
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Make a plan in an empty folder, as Snakemake does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("MEDVQA_CONFIG", "")
    return lambda **raw: Plan({"datasets": DATASETS, **raw}, [], tmp_path)


def jobs(plan: Plan) -> dict:
    """The params of the download and convert jobs."""
    download = {name: plan.source(SimpleNamespace(source=name)) for name in plan.sources}
    convert = {name: plan.conversion(SimpleNamespace(dataset=name)) for name in DATASETS}
    return {("download", name): values for name, values in download.items()} | {
        ("convert", name): values for name, values in convert.items()
    }


def changed(before: Plan, after: Plan) -> set[tuple[str, str]]:
    old, new = jobs(before), jobs(after)
    return {job for job in old if old[job] != new[job]}


def test_other_languages_convert_again_but_fetch_nothing(plan):
    english = {**DATASETS, "slake": {**SLAKE, "languages": ["en"]}}
    assert changed(plan(), plan(datasets=english)) == {("convert", "slake"), ("convert", "both")}


def test_another_seed_draws_embedded_sources_anew(plan):
    converted = {("convert", name) for name in DATASETS}
    assert changed(plan(), plan(seed=1)) == {("download", "rad"), *converted}


def test_another_revision_fetches_again(plan):
    newer = {**DATASETS, "slake": {**SLAKE, "revision": "d"}}
    assert changed(plan(), plan(datasets=newer)) == {("download", "slake")}


def test_the_users_preference_files_are_inputs(plan):
    found = plan(preferences={"files": {"slake": ["mine.jsonl", "yours.jsonl"]}})
    assert found.preference_files(SimpleNamespace(dataset="slake")) == ["mine.jsonl", "yours.jsonl"]
    assert found.preference_files(SimpleNamespace(dataset="rad")) == []


def test_a_stage_asks_for_its_gpus_on_each_of_its_nodes(plan):
    found = plan(sft={"gpus": 4, "nodes": 2}, dpo={"gpus": 2})
    assert found.machines("sft") == {"nodes": 2, "gres": "gpu:4"}
    assert found.machines("dpo") == {"gpu": 2}  # on one node, as profiles/slurm has it by default
