"""What the workflow's jobs depend on: a change reruns what it affects, and nothing else."""

import warnings
from types import SimpleNamespace

import pytest

from workflow_scripts.configuration.dependencies import READ_BY, STAGES, convert_settings, source_settings
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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
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
    assert found.resources("sft") == {"models": 100, "nodes": 2, "gres": "gpu:4", "cpus_per_gpu": 8}
    # On one node, as profiles/slurm has it by default.
    assert found.resources("dpo") == {"models": 100, "gpu": 2, "cpus_per_gpu": 6}


@pytest.mark.parametrize(
    ("visible", "asked", "share"),
    [("0,1,2,3", 1, 25), ("0,1,2,3", 2, 50), ("0,1,2", 3, 100), ("0,1", 0, 50), ("0", 4, 100), ("", 1, 100)],
)
def test_a_job_takes_the_share_of_the_machine_that_its_gpus_are(plan, monkeypatch, visible, asked, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert plan(dpo={"gpus": asked, "batch_size": 12}).resources("dpo")["models"] == share


def test_the_resources_of_a_rule_stand_in_one_section(plan):
    found = plan(data={"threads": 3}, evaluation={"gpus": 0, "threads": 5})
    for rule in ("convert", "validate"):
        assert (found.threads(rule), found.resources(rule)) == (3, {})
    for rule in ("preferences", "evaluate"):
        assert (found.threads(rule), found.resources(rule)) == (5, {"models": 100})
    for rule in ("download", "download_model", "report"):
        assert (found.threads(rule), found.resources(rule)) == (1, {})


def test_other_resources_rerun_nothing(plan):
    fewer = {name: {"threads": 1} for name in ("data", "dpo", "evaluation")}
    before, after = plan(), plan(**fewer, sft={"threads": 1, "gpus": 2, "nodes": 2})
    for stage in STAGES:
        assert before.settings(stage) == after.settings(stage)
    assert not changed(before, after)


@pytest.mark.parametrize("section", READ_BY)
def test_a_key_reruns_the_stages_that_are_declared_to_read_it_and_no_others(plan, section):
    before = plan()
    own = getattr(before.config, section)
    assert READ_BY[section].keys() == type(own).model_fields.keys()  # a new key wants its place
    for key, readers in READ_BY[section].items():
        after = plan()  # changed behind the checks: any other value will do
        setattr(getattr(after.config, section), key, f"not {getattr(own, key)}")
        with warnings.catch_warnings(action="ignore"):  # pydantic's, of the type
            rerun = {stage for stage in STAGES if before.settings(stage) != after.settings(stage)}
        assert rerun == set(readers), f"{section}.{key}"


@pytest.mark.parametrize(
    ("key", "value", "again"),
    [
        ("images", "elsewhere", {"download"}),
        ("columns", {"image": "file"}, {"download", "convert"}),
        ("languages", ["zh"], {"convert"}),
        ("path", "other.csv", {"download"}),
        ("licence", "CC0", set()),
    ],
)
def test_a_key_of_a_set_reruns_what_reads_it(plan, key, value, again):
    own = {"reader": "custom", "path": "mine.csv"}
    before = plan(datasets={"own": own}).config
    after = plan(datasets={"own": {**own, key: value}}).config
    found = {
        stage
        for stage, values in (("download", source_settings), ("convert", convert_settings))
        if values(before, "own") != values(after, "own")
    }
    assert found == again


def test_local_tables_are_inputs(plan, tmp_path):
    folder, table = tmp_path / "set", tmp_path / "mine.csv"
    folder.mkdir()
    for file in (folder / "rows.jsonl", folder / "one.png", table):
        file.touch()
    sets = {
        "own": {"reader": "custom", "path": str(table)},
        "more": {"reader": "custom", "path": str(folder)},
    }
    found = plan(datasets=sets)
    assert found.local_files(SimpleNamespace(source="own")) == [str(table)]
    assert found.local_files(SimpleNamespace(source="more")) == [str(folder), str(folder / "rows.jsonl")]
    gone = plan(datasets={"own": {"reader": "custom", "path": "none.csv"}})  # the stage says so more clearly
    assert gone.local_files(SimpleNamespace(source="own")) == []
