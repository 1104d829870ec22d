"""What jobs ask a cluster for fits the usual trainings, by the estimator; it grows where it was too little, and only then."""

import json
import os
import re
from pathlib import Path

import pytest
from snakemake.iocontainers import Wildcards

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import reading
from workflow_scripts.models import shapes
from workflow_scripts.training.estimation import candidates, needs, sets, speed
from workflow_scripts.training.estimation.requests import BOUND, Requests

ROOT = Path(__file__).parents[3]
GIB = 2**30
GPU_STAGES = ("sft", "preferences", "dpo", "ask")


@pytest.fixture(scope="module")
def shape():
    return {version: shapes.published(version) for version in ("4.1v", "4.5v")}


def settings_of(preset: str, text: str = "", folder: Path | None = None):
    files = [ROOT / "config.yaml", *([ROOT / f"profiles/presets/{preset}.yaml"] if preset else [])]
    if folder:
        (folder / "more.yaml").write_text(text)
        files.append(folder / "more.yaml")
    return reading.load(files)


@pytest.mark.parametrize(
    "preset, version", [("", "4.1v"), ("full_8x80gb", "4.1v"), ("glm45v_lora_8x80gb", "4.5v")]
)
@pytest.mark.parametrize("dataset", ["slake", "combined"])
def test_what_is_shipped_fits_by_the_estimator(shape, preset, version, dataset):
    settings, layout, run = settings_of(preset), Layout(Path("none")), Run(dataset, version, "thinking")
    size, requests = shape[version], Requests(settings, layout)
    rows = sets.of_run(settings, layout, run, size)
    sft = settings.sft
    way = candidates.way_of(size, sft, rows, 80 * GIB)
    assert needs.fits(size, way, 80 * GIB)  # the GPUs that are asked for

    need = requests.need("sft", run)
    slowest = speed.epoch_seconds(size, way, rows, BOUND.operations / 1e12)
    assert need.seconds > sft.epochs * slowest * speed.utilised(way) / BOUND.share
    # The weights of each process that holds them whole, or of all together.
    whole = 1 if way.strategy.divides_weights else sft.gpus
    assert need.memory > whole * size.total * 2 + sft.gpus * 16 * GIB
    for stage in GPU_STAGES:
        minutes = requests.need(stage, run).resource("runtime")
        assert 30 <= minutes <= 8 * 60, stage  # bounded by need
    assert requests.need("sft", run).resource("mem_mb") < 1_000_000  # what a node of eight GPUs has


@pytest.mark.parametrize("page", ["cluster.md", "cluster.zh.md"])
def test_the_page_says_what_is_asked_for(page):
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if "GB |" in line]
    trainings = [("", "4.1v"), ("full_8x80gb", "4.1v"), ("glm45v_lora_8x80gb", "4.5v")]
    for line, (preset, version) in zip(lines, trainings, strict=True):
        requests = Requests(settings_of(preset), Layout(Path("none")))
        runs = [Run(dataset, version, "thinking") for dataset in ("slake", "combined")]
        asked = [[requests.need(stage, run) for run in runs] for stage in ("sft", "ask")]
        numbers = [asked[0][0].resource("mem_mb") // 1000]
        numbers += [need.resource("runtime") for needs in asked for need in needs]
        assert [int(word) for word in re.findall(r"\d+", line.split("|", 3)[3])] == numbers


def test_stages_without_a_model_ask_for_minutes_and_little_memory():
    requests, run = Requests(settings_of(""), Layout(Path("none"))), Run("combined", "4.1v", "base")
    for stage in ("convert", "validate", "evaluate"):
        need = requests.need(stage, run)
        assert (need.resource("mem_mb"), need.resource("runtime") <= 90) == (4000, True)
    assert requests.need("report", None).resource("runtime") == 20


def test_more_work_asks_for_more(tmp_path):
    run, layout = Run("slake", "4.1v", "thinking"), Layout(Path("none"))
    plain = Requests(settings_of(""), layout)
    longer = Requests(settings_of("", "sft: {epochs: 30}", tmp_path), layout)
    assert longer.need("sft", run).seconds > 8 * plain.need("sft", run).seconds
    assert longer.need("dpo", run) == plain.need("dpo", run)
    one_run = "runs: [{}, {dataset: slake, sft: {epochs: 30}}]"
    mixed = Requests(settings_of("", one_run, tmp_path), layout)
    assert mixed.need("sft", run) == longer.need("sft", run)
    assert mixed.need("sft", Run("rad", "4.1v", "thinking")) == plain.need(
        "sft", Run("rad", "4.1v", "thinking")
    )
    assert plain.need("ask", run, "sft").seconds < plain.need("ask", run, "untrained").seconds
    full = [
        settings_of("full_8x80gb", f"sft: {{{steps}: 10}}", tmp_path)
        for steps in ("save_steps", "validation_steps")
    ]
    saves, validates = (Requests(settings, layout).need("sft", run).seconds for settings in full)
    assert validates > saves > 2 * Requests(settings_of("full_8x80gb"), layout).need("sft", run).seconds
    nodes = Requests(settings_of("glm45v_lora_8x80gb", "sft: {nodes: 2, gpus: 4}", tmp_path), layout)
    one = Requests(settings_of("glm45v_lora_8x80gb"), layout)
    experts = Run("slake", "4.5v", "thinking")
    assert nodes.need("sft", experts).seconds > one.need("sft", experts).seconds  # slower wires


def test_a_set_that_nobody_counted_is_taken_for_a_large_one_until_it_is_converted(tmp_path):
    mine = "datasets: {mine: {reader: custom, path: mine.csv}}"
    settings, layout, run = settings_of("", mine, tmp_path), Layout(tmp_path), Run("mine", "4.1v", "base")
    before = Requests(settings, layout).need("sft", run)
    layout.data(run).mkdir(parents=True)
    layout.data_summary(run).write_text(json.dumps({"rows": {"train": 100}}))
    assert Requests(settings, layout).need("sft", run).seconds < before.seconds / 10


def test_what_is_stated_for_a_kind_of_job_is_asked_for_and_grows_as_estimates_do(tmp_path, monkeypatch):
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "now")
    stated = settings_of("", "cluster: {mem_mb: {sft: 90000}, runtime: {sft: 720, ask: 45}}", tmp_path)
    layout, run = Layout(tmp_path), Run("slake", "4.1v", "base")
    job = Wildcards(fromdict={"dataset": "slake", "model_version": "4.1v", "mode": "base"})
    requests = Requests(stated, layout)
    sft, dpo = requests.of("sft"), requests.of("dpo")
    assert (sft["mem_mb"](job, attempt=1), sft["runtime"](job, attempt=1)) == (90_000, 720)
    assert requests.first("ask", run, "runtime") == 45 and requests.first("ask", run, "mem_mb") > 20_000
    assert dpo["runtime"](job, attempt=1) == requests.need("dpo", run).resource("runtime")
    path = attempts.note_of(layout.log("sft", str(run)))
    path.parent.mkdir(parents=True)
    attempts._write(path, attempts.Note("now", "", end="OUT_OF_MEMORY"), "running")
    assert (sft["mem_mb"](job, attempt=2), sft["runtime"](job, attempt=2)) == (180_000, 720)


@pytest.mark.parametrize(
    ("state", "memory", "minutes"),
    [("TIMEOUT", 1, 2), ("OUT_OF_MEMORY", 2, 1), ("NODE_FAIL", 1, 1), ("PREEMPTED", 1, 1), ("", 1, 1)],
)
def test_a_job_asks_for_more_where_it_lacked_that(tmp_path, monkeypatch, state, memory, minutes):
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "now")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(slurm, "state_of", {"7": state}.get)
    layout, run = Layout(tmp_path), Run("slake", "4.1v", "base")
    job = Wildcards(fromdict={"dataset": "slake", "model_version": "4.1v", "mode": "base"})
    asked = Requests(settings_of(""), layout).of("sft")

    def asks(attempt: int) -> tuple[int, int]:
        return asked["mem_mb"](job, attempt=attempt), asked["runtime"](job, attempt=attempt)

    first = asks(1)
    assert asks(2) == first  # no attempt has said anything
    note = attempts.Note(invocation="now", command="", slurm_job="7")
    path = attempts.note_of(layout.log("sft", str(run)))
    path.parent.mkdir(parents=True)
    attempts._write(path, note, "running")
    assert asks(2) == (memory * first[0], minutes * first[1])
    assert asks(1) == first  # nothing is looked up while a workflow is planned
    with monkeypatch.context() as requeued:
        requeued.setenv(attempts.MAIN_VARIABLE, "now")  # whose Snakemake counts the attempts anew
        assert asks(1) == asks(2)
    attempts._write(path, attempts.Note(**{**vars(note), "invocation": "before"}), "running")
    assert asks(2) == first  # an earlier invocation's
    assert os.environ[attempts.INVOCATION_VARIABLE] == "now"
