"""Stages that hold a model see the GPUs that their settings ask for, of the free ones, and no others."""

import os

import pytest

from workflow_scripts.base import gpus, locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import flags
from workflow_scripts.configuration.settings import Config
from workflow_scripts.stages import ask, preferences

RUN = Run("slake", "4.1v", "base")
SETTINGS = "sft: {gpus: 2}\ndpo: {gpus: 1}\nevaluation: {gpus: 1}\ntracking: []\n"


class Seen(Exception):
    """What the stage saw, in place of its work."""


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    """The results of a machine with three GPUs, one of which another job has."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(gpus.VARIABLE, "0,1,2")
    taken = locks.take(gpus._lock_of("0"))
    yield Layout(tmp_path / "results")
    taken.release()


def seen(*arguments) -> None:
    raise Seen(os.environ[gpus.VARIABLE])


@pytest.mark.parametrize("stage", [ask, preferences])
def test_what_asks_a_model(layout, monkeypatch, stage):
    monkeypatch.setattr(stage, stage.__name__.rpartition(".")[2], seen)
    settings = Config.model_validate({"tracking": [], "evaluation": {"gpus": 1}})
    more = [layout.root] if stage is preferences else ["sft", "original"]
    with pytest.raises(Seen, match="^1$"):
        stage.stage(settings, layout, RUN, *more)
    assert os.environ[gpus.VARIABLE] == "0,1,2"


def test_a_training_takes_its_gpus_after_its_output_and_not_before(layout, tmp_path):
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    names = ["--dataset", "slake", "--model_version", "4.1v", "--mode", "base"]
    where = ["--config", str(tmp_path / "settings.yaml"), "--results", str(layout.root)]
    options = flags.training_options("sft", "", [*names, *where])
    with flags.training_place(options, "sft"):
        assert os.environ[gpus.VARIABLE] == "1,2"
        with pytest.raises(UserError, match="sft/slake_4.1v_base: another command"):
            output = locks.take(locks.lock_of(layout.trained("sft", RUN)))  # its own, from its stage on
            with flags.training_place(options, "sft"):  # the second has no GPU to wait for
                pass
        output.release()
        assert os.environ[gpus.VARIABLE] == "1,2"
