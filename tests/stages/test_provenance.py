"""An evaluation says how it was made; from that alone it is made again, compared with what is here, and packed."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import forked
import jsonschema
import pytest
from rocrate.rocrate import ROCrate

from workflow_scripts import crate as crate_command
from workflow_scripts import evaluation as evaluation_room
from workflow_scripts import reproduce as reproduce_command
from workflow_scripts.base import environment, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration import dependencies, reading, text
from workflow_scripts.stages import crate, provenance, reproduce

ROOT = Path(__file__).parents[2]
RUN = Run("both", "4.1v", "base")
SCHEMA = files.read_json(Path(evaluation_room.__file__).parent / "schema.json")
CONFIGURATION = """
seed: 7
datasets:
  rad: {reader: rad, embedded: 10}
  slake: {reader: slake, embedded: 10}
  both: {members: [rad, slake]}
models: {4.1v: {base: {embedded: true}}}
runs: [{dataset: both, sft: {epochs: 5}}]
tracking: []
"""
MATRIX = {
    "held": "train",
    "tested": "test",
    "columns": [{"set": "rad", "language": "en", "images": 3, "rows": 9}, {"set": "all", "language": "all", "images": 5, "rows": 12}],
    "rows": [
        {"set": "rad", "language": "en", "cells": [{"images": 9, "rows": 9, "exact": 9}] * 2},
        {"set": "all", "language": "all", "cells": [{"images": 2, "rows": 6, "exact": 1}, {"images": 3, "rows": 7, "exact": 1}]},
    ],
}  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """(settings, layout) of a run whose files are there, made here and now."""
    (tmp_path / "config.yaml").write_text(CONFIGURATION)
    settings, layout = reading.load([tmp_path / "config.yaml"]), Layout(tmp_path / "results")
    for folder in (layout.raw("rad"), layout.raw("slake"), layout.model(RUN.model_version, RUN.mode)):
        files.write_json(
            folder / MANIFEST, {"origin": {"revision": "abc"}, "fingerprint": f"of {folder.name}"}
        )
    for split in ("train", "validation", "test"):
        files.write_jsonl(layout.split(RUN, split), [{"id": split}, {"id": "other"}])
    files.write_json(layout.validation(RUN), {"splits": "image_disjoint", "leaks": [MATRIX]})
    for stage in ("sft", "dpo"):
        files.write_json(layout.metrics(stage, RUN), {"made": environment.made()})
    files.write_json(layout.answers(RUN, "sft", "original").with_suffix(".json"), {"version": 1})
    for path in (
        layout.predictions(RUN),
        layout.scores(RUN),
        layout.data_summary(RUN),
        layout.pairs_summary(RUN),
    ):
        files.write_text(path, "{}\n")
    for page in (layout.evaluation_page(RUN), layout.validation_page(RUN)):
        files.write_text(page, "pictures")
    asked = files.read_object(layout.answers(RUN, "sft", "original").with_suffix(".json"))
    told = provenance.provenance(dependencies.shown_to("evaluate", settings, RUN), layout, RUN, asked)
    files.write_json(layout.evaluation(RUN), {"run": str(RUN), "provenance": told})
    return settings, layout


def told_by(layout) -> dict:
    return files.read_value(layout.evaluation(RUN), "provenance")


def test_it_fits_the_schema_and_has_the_whole_configuration(made):
    settings, layout = made
    told = told_by(layout)
    jsonschema.validate(told, SCHEMA["properties"]["provenance"] | {"$defs": SCHEMA["$defs"]})
    assert told["seed"] == 7 and told["splits"] == "image_disjoint" and told["protocol"] == "strict"
    assert (
        told["configuration"]["runs"][0]["sft"] == {"epochs": 5}
        and told["configuration"]["sft"]["epochs"] == 3
    )
    kept = text.write_copy(settings, layout)
    assert told["configuration_fingerprint"] == kept.stem, "the name of the copy that the jobs read"
    assert told["records"]["test"] == {"rows": 2, "sha256": files.sha256(layout.split(RUN, "test"))}
    assert {name: origin["fingerprint"] for name, origin in told["sources"].items()} == {
        "rad": "of rad",
        "slake": "of slake",
    }
    assert told["stages"]["sft"]["package"] and told["stages"]["ask"] is None


def test_leaks_are_counted_by_set_over_all_of_the_other_split(made):
    found = {(leak["set"], leak["language"]): leak["images"] for leak in told_by(made[1])["leaks"]}
    assert found == {("rad", "en"): 2, ("all", "all"): 3}


def test_the_configuration_that_is_written_is_the_one_that_was_read(made, tmp_path, capsys):
    settings, layout = made
    assert reproduce_command.main([str(layout.evaluation(RUN)), "--write", str(tmp_path / "again")]) == 0
    again = reading.load([tmp_path / "again" / "config.yaml"])
    assert again == settings
    commands = (tmp_path / "again" / "reproduce.sh").read_text()
    subprocess.run(["sh", "-n", tmp_path / "again" / "reproduce.sh"], check=True)
    assert f"--configfile {tmp_path}/again/config.yaml -- results/eval/{RUN}.json" in commands
    commit, _ = environment.code()
    assert commit is None or f"git checkout {commit}" in commands
    assert "seed 7" in capsys.readouterr().out


@pytest.fixture
def other(made, tmp_path):
    """(settings, provenance) of a run whose configuration lacks what config.yaml has: sets, checkpoints, a loss."""
    (tmp_path / "other.yaml").write_text(CONFIGURATION + "dpo: {loss: {ipo: 1.0}}\n")
    settings = reading.load([tmp_path / "other.yaml"])
    return settings, {**told_by(made[1]), "configuration": settings.recorded()}


def test_over_the_config_yaml_of_the_commit_or_of_this_folder_it_is_the_one_that_was_read(
    other, tmp_path, monkeypatch
):
    settings, told = other
    told["made"]["commit"] = "abc"
    texts = {
        "here": "dpo: {loss: {hinge: 1.0}, trainer: {max_grad_norm: 0.5}}",
        "commit": (ROOT / "config.yaml").read_text(encoding="utf-8"),
    }
    asked = {("show", "abc:config.yaml"): texts["commit"]}
    monkeypatch.setattr(environment, "git", lambda *arguments: asked[arguments])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(texts["here"])
    (tmp_path / "written.yaml").write_text(reproduce.configuration(told))
    for name, below in texts.items():
        (tmp_path / "below.yaml").write_text(below)
        assert reading.load([tmp_path / "below.yaml", tmp_path / "written.yaml"]) == settings, name


def test_snakemake_plans_by_the_one_that_was_read(other, tmp_path):
    settings, told = other
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "config.yaml", folder)
    (folder / "written.yaml").write_text(reproduce.configuration(told))
    where = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "written.yaml", "--cores", "1"]
    arguments = ["-n", *where, "--", f"results/eval/{RUN}.json"]
    planned = forked.run("snakemake", *arguments, folder=folder, environment=dict(os.environ))
    assert planned.returncode == 0, planned.stderr
    (copy,) = (folder / "results/config").iterdir()
    assert reading.load([copy]) == settings


def test_what_was_made_outside_of_git_names_a_version_and_no_package_of_an_index(made, tmp_path):
    """On PyPI the name is another project's."""
    told = told_by(made[1])
    told["made"] |= {"commit": None, "dirty": None, "package": "0.0.7"}
    first, *others = reproduce.steps(RUN, told, tmp_path)
    assert first.startswith("# made by version 0.0.7 ") and not any("pip install" in line for line in others)


@pytest.mark.parametrize(("limit", "folder"), [(None, ""), (32, "limited_32/")])
def test_an_evaluation_of_another_version_of_the_keys_is_told_too(made, tmp_path, limit, folder):
    """The code that it names reads them; this one may know some no longer."""
    told = told_by(made[1])
    told["configuration"] |= {"a_key_of_another_version": 1, "limit": limit}
    command = reproduce.steps(RUN, told, tmp_path)[-1]
    assert command.endswith(f" -- results/{folder}eval/{RUN}.json")


def test_what_is_the_same_is_not_called_other(made):
    _, layout = made
    told, here = told_by(layout), environment.made()
    said = [
        line
        for line in reproduce.differences(RUN, told, layout, here)
        if "changes" not in line and "changed" not in line
    ]
    assert said == ["ask: of a time when its code and machine were not recorded"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda here, layout: here.update(commit="f" * 40), "here commit ffffffffffff"),
        (lambda here, layout: here["libraries"].update(torch="0.4"), ", here 0.4"),
        (lambda here, layout: here["hardware"].update(gpus=["NVIDIA X"]), "here: NVIDIA X, "),
        (lambda here, layout: files.write_jsonl(layout.split(RUN, "test"), []), "test records: "),
        (lambda here, layout: (layout.raw("rad") / MANIFEST).unlink(), "source rad: not here"),
        (
            lambda here, layout: files.write_json(layout.raw("slake") / MANIFEST, {"fingerprint": "new"}),
            "source slake: of slake, here new",
        ),
    ],
)  # fmt: skip
def test_what_is_other_here_is_said(made, change, said):
    _, layout = made
    told, here = told_by(layout), json.loads(json.dumps(environment.made()))
    before = list(reproduce.differences(RUN, told, layout, here))
    change(here, layout)
    after = list(reproduce.differences(RUN, told, layout, here))
    assert not any(said in line for line in before) and any(said in line for line in after), after


def test_an_evaluation_of_before_is_one_error(made):
    _, layout = made
    files.write_json(layout.evaluation(RUN), {"run": str(RUN)})
    with pytest.raises(UserError, match="says nothing of how it was made"):
        reproduce.reproduce(layout.evaluation(RUN), None)
    with pytest.raises(UserError, match="says nothing of how it was made"):
        crate.export(layout, str(RUN), layout.crate(str(RUN)), False, False)


def test_a_crate_describes_what_it_holds_and_where_it_came_from(made, tmp_path, capsys):
    _, layout = made
    flags = ["--config", str(tmp_path / "config.yaml"), "--results", str(layout.root)]
    assert crate_command.main([*flags, "--run", str(RUN)]) == 0
    with zipfile.ZipFile(layout.crate(str(RUN))) as packed:
        packed.extractall(tmp_path / "crate")
        names = packed.namelist()
    read = ROCrate(tmp_path / "crate")
    for entity in read.data_entities:
        assert (tmp_path / "crate" / entity.id).is_file(), entity.id
    assert read.mainEntity.id == "Snakefile" and reading.load([tmp_path / "crate" / "config.yaml"]).seed == 7
    action = next(entity for entity in read.contextual_entities if entity.type == "CreateAction")
    assert action["instrument"] == read.mainEntity
    results = {entity.id: entity for entity in action["result"]}
    assert results[f"eval/{RUN}.json"]["sha256"] == files.sha256(layout.evaluation(RUN))
    assert {"of rad", "of slake", "of 4.1v_base"} == {
        entity["identifier"] for entity in action["object"] if entity.type == "Dataset"
    }
    assert not [name for name in names if name.endswith(".html")], "pages show images of the data"


def test_pages_are_packed_when_asked_for_and_a_folder_does(made, tmp_path):
    _, layout = made
    crate.export(layout, str(RUN), tmp_path / "open", pages=True, snakemake_report=False)
    assert (tmp_path / "open" / f"eval/{RUN}/evaluation.html").read_text() == "pictures"
    assert (tmp_path / "open" / "ro-crate-metadata.json").is_file()


def test_a_crate_of_a_try_says_so(made, tmp_path):
    _, layout = made
    files.write_json(
        layout.evaluation(RUN), {**files.read_object(layout.evaluation(RUN)), "run": str(RUN), "limit": 32}
    )
    crate.export(layout, str(RUN), tmp_path / "open", pages=False, snakemake_report=False)
    read = ROCrate(tmp_path / "open")
    assert f"{RUN} (a try, limit 32)" in read.name and "say nothing about the model" in read.description


@pytest.mark.slow
def test_a_run_without_results_or_a_report_that_fails_is_one_error_and_leaves_nothing(made, tmp_path):
    _, layout = made
    with pytest.raises(UserError, match="--run slake_4.1v_base: has no evaluation"):
        crate.export(layout, "slake_4.1v_base", tmp_path / "x.zip", False, False)
    with pytest.raises(UserError, match="Snakemake makes no report of "):
        crate.export(layout, str(RUN), tmp_path / "x.zip", False, True)
    assert not (tmp_path / "x.zip").exists()


def test_neither_command_imports_what_is_heavy():
    heavy = {"torch", "transformers", "rocrate", "pandas"}
    code = (
        f"import sys, workflow_scripts.crate, workflow_scripts.reproduce; print(*{heavy} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == ""
    )
