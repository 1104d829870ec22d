"""What the workflow's jobs depend on: a change reruns what it affects, and nothing else."""

from types import SimpleNamespace

import pytest

from workflow_scripts.configuration.dependencies import STAGE_SECTIONS
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
    found = plan(sft={"gpus": 4, "nodes": 2}, dpo={"gpus": 2, "threads": 6})
    assert found.resources("sft") == {"models": 1, "nodes": 2, "gres": "gpu:4", "cpus_per_gpu": 8}
    # On one node, as profiles/slurm has it by default.
    assert found.resources("dpo") == {"models": 1, "gpu": 2, "cpus_per_gpu": 6}


def test_the_resources_of_a_rule_stand_in_one_section(plan):
    found = plan(data={"threads": 3}, evaluation={"gpus": 0, "threads": 5})
    for rule in ("convert", "validate"):
        assert (found.threads(rule), found.resources(rule)) == (3, {})
    for rule in ("preferences", "evaluate"):
        assert (found.threads(rule), found.resources(rule)) == (5, {"models": 1})
    for rule in ("download", "download_model", "report"):
        assert (found.threads(rule), found.resources(rule)) == (1, {})


def test_other_resources_rerun_nothing(plan):
    fewer = {name: {"threads": 1} for name in ("data", "dpo", "evaluation")}
    before, after = plan(), plan(**fewer, sft={"threads": 1, "gpus": 2, "nodes": 2})
    for stage in STAGE_SECTIONS:
        assert before.settings(stage) == after.settings(stage)
    assert not changed(before, after)
