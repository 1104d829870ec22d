"""Checkpoints are resumed when everything they depend on is the same, and discarded otherwise."""

import logging

from workflow_scripts.base import files
from workflow_scripts.training import checkpoints

NOW = {"settings": {"seed": 1, "lora": {"rank": 4}}, "data": "abc"}


def whole(folder, step):
    (folder / f"checkpoint-{step}").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    checkpoints.seal(folder / f"checkpoint-{step}")


def test_the_newest_whole_checkpoint_is_resumed(tmp_path):
    assert checkpoints.prepare(tmp_path / "run", NOW) is None
    for step in (5, 10, 100):
        whole(tmp_path / "run", step)
    (tmp_path / "run" / "checkpoint-100" / "trainer_state.json").unlink()
    assert checkpoints.prepare(tmp_path / "run", NOW).name == "checkpoint-10"
    assert not (tmp_path / "run" / "checkpoint-100").exists()


def test_a_changed_parameter_starts_afresh_and_says_so(tmp_path, caplog):
    checkpoints.prepare(tmp_path / "run", NOW)
    whole(tmp_path / "run", 5)
    with caplog.at_level(logging.INFO):
        assert checkpoints.prepare(tmp_path / "run", {**NOW, "settings": {"seed": 2}}) is None
    assert "starting afresh: settings changed" in caplog.text
    assert not (tmp_path / "run" / "checkpoint-5").exists()


def test_checkpoints_of_unknown_origin_are_not_resumed(tmp_path):
    whole(tmp_path / "run", 5)
    assert checkpoints.prepare(tmp_path / "run", NOW) is None


def test_to_list_those_that_are_kept_reads_no_weights(tmp_path, monkeypatch):
    """Trackers ask after each save."""
    for step in (10, 5):
        whole(tmp_path, step)
    (tmp_path / "checkpoint-15").mkdir()  # was not sealed
    read = []
    digest = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.name) or digest(path))
    assert [found.step for found in checkpoints.kept(tmp_path)] == [5, 10]
    assert read == [checkpoints.MANIFEST] * 2
