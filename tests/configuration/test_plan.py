"""What the workflow's jobs depend on: a change reruns what it affects, and nothing else."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow_scripts.base.paths import Run
from workflow_scripts.configuration import runs, text
from workflow_scripts.configuration.dependencies import (
    READ_BESIDES,
    READ_BY,
    STAGES,
    convert_settings,
    run_fingerprint,
    shown_to,
    source_settings,
    stage_settings,
)
from workflow_scripts.configuration.plan import Plan
from workflow_scripts.configuration.settings import Config, UndeclaredKey

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
    return lambda **raw: Plan({"datasets": DATASETS, **raw}, [])


def jobs(plan: Plan) -> dict:
    """The params of the download and convert jobs."""
    download = {name: plan.source(SimpleNamespace(source=name)) for name in plan.sources}
    convert = {name: plan.conversion(SimpleNamespace(dataset=name)) for name in DATASETS}
    return {("download", name): values for name, values in download.items()} | {
        ("convert", name): values for name, values in convert.items()
    }


RUN = SimpleNamespace(dataset="slake", model_version="4.1v", mode="base")


def params(plan: Plan, stage: str, run: SimpleNamespace = RUN) -> dict:
    return plan.settings(stage)(run)


def resources(plan: Plan, rule: str, run: SimpleNamespace = RUN) -> dict:
    """The threads and resources that Snakemake sees of a job, which leaves None out."""
    found = {"threads": plan.threads(rule), **plan.resources(rule)}
    values = {name: value(run) if callable(value) else value for name, value in found.items()}
    return {name: value for name, value in values.items() if value is not None}


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
    assert found.preference_files(RUN) == ["mine.jsonl", "yours.jsonl"]
    other = SimpleNamespace(dataset="rad", model_version="4.1v", mode="base")
    assert found.preference_files(other) == []


def test_a_stage_asks_for_its_gpus_on_each_of_its_nodes(plan):
    found = plan(sft={"gpus": 4, "nodes": 2}, dpo={"gpus": 2, "threads": 6})
    of_sft = {"threads": 8, "models": 100, "nodes": 2, "gres": "gpu:4", "cpus_per_gpu": 8}
    assert resources(found, "sft") == of_sft
    # On one node, as profiles/slurm has it by default.
    assert resources(found, "dpo") == {"threads": 6, "models": 100, "nodes": 1, "gpu": 2, "cpus_per_gpu": 6}


@pytest.mark.parametrize(
    ("visible", "asked", "share"),
    [("0,1,2,3", 1, 25), ("0,1,2,3", 2, 50), ("0,1,2", 3, 100), ("0,1", 0, 50), ("0", 4, 100), ("", 1, 100)],
)
def test_a_job_takes_the_share_of_the_machine_that_its_gpus_are(plan, monkeypatch, visible, asked, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources(plan(dpo={"gpus": asked, "batch_size": 12}), "dpo")["models"] == share


def test_the_resources_of_a_rule_stand_in_one_section(plan):
    found = plan(data={"threads": 3}, evaluation={"gpus": 0, "threads": 5})
    for rule in ("convert", "validate", "evaluate"):
        assert resources(found, rule) == {"threads": 3}
    for rule in ("preferences", "ask"):
        assert resources(found, rule) == {"threads": 5, "models": 100, "nodes": 1}
    for rule in ("download", "download_model", "report"):
        assert resources(found, rule) == {"threads": 1}


def test_other_resources_rerun_nothing(plan):
    fewer = {name: {"threads": 1} for name in ("data", "dpo", "evaluation")}
    before, after = plan(), plan(**fewer, sft={"threads": 1, "gpus": 2, "nodes": 2})
    for stage in STAGES:
        assert params(before, stage) == params(after, stage)
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
            rerun = {stage for stage in STAGES if params(before, stage) != params(after, stage)}
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


ONE_AND_EIGHT = [
    {"dataset": "slake", "model_version": "4.1v"},
    {"model_version": "4.5v", "mode": ["base"], "sft": {"gpus": 8, "strategy": "zero3"}},
    {"dataset": "rad", "model_version": "4.5v", "sft": {"epochs": 5, "gpus": 4}, "evaluation": {"gpus": 0}},
]


def test_the_runs_say_what_is_made_with_which_settings_and_resources(plan):
    found = plan(runs=ONE_AND_EIGHT)
    assert [Path(path).stem for path in found.evaluations] == [
        "slake_4.1v_thinking", "slake_4.1v_base", "slake_4.5v_base",
        "rad_4.5v_thinking", "rad_4.5v_base", "both_4.5v_base",
    ]  # fmt: skip
    large = SimpleNamespace(dataset="slake", model_version="4.5v", mode="base")
    both = SimpleNamespace(dataset="rad", model_version="4.5v", mode="base")
    assert resources(found, "sft")["gpu"] == 1
    assert resources(found, "sft", large)["gpu"] == 8 and resources(found, "dpo", large)["gpu"] == 1
    # A later entry lies over an earlier one, and what it leaves out stays.
    assert resources(found, "sft", both)["gpu"] == 4 and "gpu" not in resources(found, "ask", both)
    assert found.config.sft.strategy == "ddp"
    assert runs.settings_of(found.config, Run("rad", "4.5v", "base")).sft.strategy == "zero3"
    assert params(found, "sft", both)["sft"]["epochs"] == 5


def test_another_setting_of_one_run_reruns_its_jobs_alone(plan):
    known = [SimpleNamespace(**vars(run)) for run in runs.possible(plan().config)]
    for key, value, again in (
        ("sft", {"epochs": 5}, {"sft"}),
        ("dpo", {"beta": 0.2}, {"dpo"}),
        ("preferences", {"samples": 3}, {"preferences"}),
        ("evaluation", {"max_new_tokens": 3}, {"preferences", "ask"}),
        ("sft", {"gpus": 4, "strategy": "zero2"}, set()),
    ):
        before = plan(runs=[{}])
        after = plan(runs=[{}, {"dataset": "rad", "model_version": "4.1v", "mode": "base", key: value}])
        rerun = {
            (run.dataset, run.model_version, run.mode, stage)
            for run in known
            for stage in STAGES
            if params(before, stage, run) != params(after, stage, run)
        }
        assert rerun == {("rad", "4.1v", "base", stage) for stage in again}


def test_a_run_that_is_not_chosen_keeps_the_settings_of_all(plan):
    found = plan(runs=[{"dataset": "rad", "sft": {"epochs": 5}}], sft={"epochs": 4})
    assert params(found, "sft", RUN)["sft"]["epochs"] == 4
    assert not [path for path in found.evaluations if "slake" in path]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_reads_a_key_which_is_not_declared_for_it_fails(stage):
    shown = shown_to(stage, Config(), Run("slake", "4.1v", "base"))
    for section in READ_BY:
        for key in READ_BY[section]:
            readers = {*READ_BY[section][key], *READ_BESIDES[section].get(key, ())}
            if stage in readers:
                assert getattr(getattr(shown, section), key) == getattr(getattr(Config(), section), key)
            else:
                with pytest.raises(
                    UndeclaredKey, match=rf"^{stage} reads {section}\.{key}, which is not decl"
                ):
                    getattr(getattr(shown, section), key)
    with pytest.raises(UndeclaredKey, match=f"^{stage} reads runs,"):
        shown.runs  # noqa: B018
    assert stage_settings(shown, stage) == stage_settings(Config(), stage)
    text.to_yaml(shown)  # as a tracker records it


@pytest.mark.parametrize(("key", "stage"), [("server", "ask"), ("judge", "evaluate")])
def test_another_address_of_a_server_reruns_nothing_and_another_model_does(key, stage):
    def of(**changes):
        served = {"url": "http://127.0.0.1:8000/v1", "model": "{model}", **changes}
        return stage_settings(Config.model_validate({"evaluation": {key: served}}), stage)["evaluation"][key]

    for same in ({"url": "http://[::1]:9/v1"}, {"concurrent": 2}, {"timeout": 5}, {"retries": 1}):
        assert of(**same) == of(), same
    assert of(model="other {model}") != of() != of(parameters={"top_p": 0.5})


def test_a_property_that_reads_an_undeclared_key_names_that_key():
    with pytest.raises(
        UndeclaredKey, match=r"^evaluate reads sft\.learning_rate|^evaluate reads sft\.method"
    ):
        shown_to("evaluate", Config(), Run("slake", "4.1v", "base")).sft.rate  # noqa: B018


def test_a_stage_that_is_not_in_the_list_of_stages_is_an_error():
    with pytest.raises(ValueError, match="convrt is none of"):
        stage_settings(Config(), "convrt")


def test_a_limited_run_is_another_configuration_in_a_folder_of_its_own(plan):
    whole, limited = plan(), plan(limit=32)
    assert str(limited.layout.root) == "results/limited_32" and limited.layout.fetched == whole.layout.root
    assert {Path(path).parts[:2] for path in limited.evaluations} == {("results", "limited_32")}
    assert limited.raw_manifests(RUN) == whole.raw_manifests(RUN)
    assert limited.source(SimpleNamespace(source="slake")) == whole.source(SimpleNamespace(source="slake"))
    for stage in STAGES:
        assert params(limited, stage) == {**params(whole, stage), "limit": 32}
    run = Run("slake", "4.1v", "base")
    found = {
        run_fingerprint(settings, run) for settings in (whole.config, limited.config, plan(limit=8).config)
    }
    assert len(found) == 3
    assert limited.config.layout(Path("/elsewhere")).root == Path("/elsewhere/limited_32")
