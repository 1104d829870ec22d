"""A training that has come to its result is not done again, and says so."""

import logging
import os

import pytest

from workflow_scripts.base import files
from workflow_scripts.stages import dpo, sft
from workflow_scripts.training import finished
from workflow_scripts.training import run as training

ALREADY = "trained already, by the same settings, data and base model; not trained again"
DEPENDS_ON = {"settings": {"epochs": 3}, "data": "a digest"}
METRICS = {"stage": "sft", "steps": 3, "final_loss": 0.5}


@pytest.fixture
def sealed(tmp_path):
    """A folder with the files of a model, declared finished."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        (folder / name).write_bytes(os.urandom(100))
    finished.seal(folder, DEPENDS_ON, METRICS)
    return folder


def test_the_same_training_is_recognised_and_its_metrics_are_new(sealed, caplog):
    written = {path.name: path.read_bytes() for path in sealed.iterdir()}
    for removed in (False, True):  # Snakemake removes its outputs before a job
        metrics = sealed / "metrics.json"
        os.utime(metrics, (0, 0))
        if removed:
            metrics.unlink()
        with caplog.at_level(logging.INFO):
            found = finished.metrics(sealed, DEPENDS_ON)
        assert found == METRICS | {"fingerprint": found["fingerprint"]} == files.read_json(metrics)
        assert f"{sealed}: {ALREADY}" in caplog.text
        assert {path.name: path.read_bytes() for path in sealed.iterdir()} == written
        assert metrics.stat().st_mtime > 0


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["shortened", "changed", "gone"])
def test_a_model_that_is_not_whole_is_not_taken_for_one(sealed, caplog, name, damage):
    content = (sealed / name).read_bytes()
    (sealed / name).write_bytes(content[:-1] if damage == "shortened" else content[::-1])
    if damage == "gone":
        (sealed / name).unlink()
    assert finished.metrics(sealed, DEPENDS_ON) is None
    assert f"{name}: missing, or not as the training wrote it; training again" in caplog.text


def test_nothing_else_is_taken_for_it(sealed):
    assert finished.metrics(sealed, DEPENDS_ON | {"data": "another"}) is None
    assert finished.metrics(sealed.parent, DEPENDS_ON) is None
    (sealed / "training.json").write_text('{"metrics": ')
    assert finished.metrics(sealed, DEPENDS_ON) is None


@pytest.fixture
def train(workplace, caplog):
    """Run the stage sft, or the one given, for a step; returns what it says."""
    for settings in (workplace.settings.sft, workplace.settings.dpo):
        settings.max_steps = 1

    def stage(of=sft, base=None) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            of.stage(workplace.settings, workplace.layout, workplace.run, base or workplace.model)
        return caplog.text

    return stage


def test_neither_sft_nor_dpo_is_done_again_until_something_changes(train, workplace):
    layout, run = workplace.layout, workplace.run
    trained, unfinished = layout.trained("sft", run), layout.checkpoints("sft", run)
    assert " step 1/1 " in train() and " step 1/1 " in train(dpo, trained)
    (trained / "metrics.json").unlink()
    files.write_json(unfinished / "fingerprint.json", {"of": "another"})
    workplace.settings.sft.log_steps = 3  # of how it runs
    said = train()
    assert ALREADY in said and " step " not in said
    assert unfinished.exists()  # not of this training
    said = train(dpo, trained)  # the base model is the same, though its metrics.json is newer
    assert ALREADY in said and " step " not in said
    workplace.settings.sft.learning_rate = 2e-3
    said = train()
    assert ALREADY not in said and " step 1/1 " in said


@pytest.mark.parametrize("killed_before", ["its record", "the removal of its checkpoints"])
def test_one_that_was_killed_after_its_last_step_trains_nothing_again(
    train, workplace, monkeypatch, killed_before
):
    """An interrupt at that place leaves on the disk what a kill does."""
    layout, run = workplace.layout, workplace.run
    trained, unfinished = layout.trained("sft", run), layout.checkpoints("sft", run)

    def interrupt(path, *arguments, **options):
        if killed_before == "its record" or path == unfinished:
            raise KeyboardInterrupt

    place = (finished, "seal") if killed_before == "its record" else (training.shutil, "rmtree")
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(*place, interrupt)
        train()
    assert list(unfinished.glob("checkpoint-1"))
    was_in_place = trained.exists()
    assert was_in_place == (killed_before != "its record")
    said = train()
    assert (ALREADY if was_in_place else "resuming from step 1") in said
    assert " step 1/1 " not in said and not unfinished.exists()
    assert files.read_json(trained / "metrics.json")["final_loss"] > 0
