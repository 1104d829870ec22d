"""The self-test of a configuration: one batch is learnt by heart, or it is said why not; nothing of it stays."""

import logging

import pytest
import yaml

from workflow_scripts import sft as command
from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError
from workflow_scripts.stages import dpo, sft
from workflow_scripts.training import overfit

STEPS = 120


def written(workplace) -> set[str]:
    """All files but kept vision features, which belong to no run."""
    root = workplace.layout.root
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != "features"}


@pytest.mark.parametrize("stage", [sft, dpo])
def test_one_batch_is_learnt_and_nothing_of_it_stays(workplace, caplog, stage):
    """And shown, once, where it is debugged."""
    settings, before = workplace.settings, written(workplace)
    for own in (settings.sft, settings.dpo):
        own.learning_rate, own.lora.dropout, own.validation_steps = 1e-2, 0.5, 1
        own.trainer = {"eval_on_start": True}
    with caplog.at_level(logging.DEBUG, logger="workflow_scripts"):
        outcome = stage.overfit(settings, workplace.layout, workplace.run, workplace.model, STEPS)
    first = outcome["curve"][0]["loss"]
    assert outcome["final_loss"] < max(0.01, first / 100) and first > 0.5 and 1 < outcome["steps"] < STEPS
    said = [line for line in caplog.messages if "loss by step" in line or "this configuration learns" in line]
    assert len(said) == 2 and said[0].startswith("loss by step: 1: ")
    assert "on all of them" in caplog.text
    assert len([line for line in caplog.messages if line.startswith("first batch: ")]) == 1
    assert "⟦" in caplog.text and "tree of the first batch" in caplog.text
    assert written(workplace) == before


def test_what_does_not_learn_ends_with_advice_and_a_status(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {
        "gpus": 0,
        "batch_size": 4,
        "images_per_step": 1,
        "learning_rate": 1e-9,
        "gradient_checkpointing": False,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"sft": own, "tracking": []}))
    names = ("dataset", "model_version", "mode")
    flags = [f"--{name}={getattr(workplace.run, name)}" for name in names]
    assert cli.run(command.main, [*flags, "--overfit", "4"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "the loss hardly falls" in error and "after 4 steps" in error and "sft.learning_rate (1e-09)" in error
    )
    assert not (tmp_path / "results/sft").exists() and not list((tmp_path / "results/overfit").rglob("rad*"))


def test_a_batch_that_was_known_before_proves_nothing(workplace):
    watch = overfit.UntilLearnt()
    watch.losses = [(1, 0.001)]
    with pytest.raises(UserError, match=r"0\.0010 at the first step.*nothing to learn"):
        overfit._check("sft", workplace.settings.sft, watch)


@pytest.mark.parametrize("own", [{"loss": {"apo_zero": 1.0}}, {"trainer": {"label_smoothing": 0.1}}])
def test_a_loss_that_does_not_fall_to_zero_is_refused(workplace, own):
    settings = workplace.settings
    settings.dpo = settings.dpo.model_copy(update=own)
    with pytest.raises(UserError, match="does not fall to 0"):
        dpo.overfit(settings, workplace.layout, workplace.run, workplace.model, STEPS)
