"""Validation while training: the model with the least loss is kept, and training stops when it falls no more."""

import logging
import os
import shutil
import signal

import pytest
from safetensors.torch import load_file

from workflow_scripts.base import files
from workflow_scripts.base.errors import Terminated, UserError
from workflow_scripts.stages.dpo import stage as dpo
from workflow_scripts.stages.dpo import task as dpo_task
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.tracking import journal
from workflow_scripts.training import checkpoints
from workflow_scripts.training.data import held_out
from workflow_scripts.training.progress import Progress
from workflow_scripts.training.run import prepare
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer


def trained(workplace, stage: str) -> tuple[dict, dict]:
    """Metrics and adapter of a training from scratch."""
    folder = workplace.layout.trained(stage, workplace.run)
    shutil.rmtree(folder, ignore_errors=True)
    metrics = {"sft": sft, "dpo": dpo}[stage](
        workplace.settings, workplace.layout, workplace.run, workplace.model
    )
    return metrics, load_file(folder / "adapter_model.safetensors")


def losses(caplog) -> dict[int, float]:
    """Validation losses by step."""
    said = [record.args[:2] for record in caplog.records if "validation loss" in record.msg]
    return dict(said)


@pytest.mark.parametrize(
    ("stage", "rate"), [("sft", 0.08), pytest.param("dpo", 0.15, marks=pytest.mark.slow)]
)
def test_the_best_model_is_kept_and_not_the_last(workplace, caplog, stage, rate):
    own = getattr(workplace.settings, stage)
    # A rate that grows to the end, far beyond what training bears.
    own.warmup, own.learning_rate, own.epochs, own.validation_steps = 0.99, rate, 3, 2
    train = list(files.read_jsonl(workplace.layout.split(workplace.run, "train")))
    shutil.copy(*(workplace.layout.data(workplace.run) / name for name in ("2.png", "3.png")))
    workplace.write_pairs(train * 2 + [record | {"images": ["3.png"]} for record in train[:2]])
    with caplog.at_level(logging.INFO):
        metrics, kept = trained(workplace, stage)
    curve = losses(caplog)
    best = min(curve, key=curve.get)
    assert 0 < best < max(curve) == metrics["steps"] and curve[metrics["steps"]] > 1.2 * curve[best]
    assert (metrics["best_step"], metrics["validation_loss"]) == (best, curve[best])

    # Stopped soon after, the same training has another last model and the same best one.
    own.patience = 1
    stopped, same = trained(workplace, stage)
    assert stopped["steps"] < metrics["steps"] and stopped["best_step"] == best
    assert kept.keys() == same.keys() and all(kept[name].equal(same[name]) for name in kept)


@pytest.mark.slow
def test_a_resumed_training_knows_the_best_model_of_before(workplace, monkeypatch):
    own = workplace.settings.sft
    own.warmup, own.learning_rate, own.epochs, own.validation_steps, own.patience = 0.99, 0.15, 3, 1, 4
    whole, kept = trained(workplace, "sft")
    assert 2 < whole["best_step"] + 1 < whole["steps"]

    class Killed(Exception):
        pass

    def kill(progress, arguments, state, control, **others):
        if state.global_step == whole["steps"] - 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_step_end", kill)
        trained(workplace, "sft")
    resumed, same = trained(workplace, "sft")
    for key in ("steps", "best_step", "validation_loss"):
        assert resumed[key] == whole[key]
    assert all(kept[name].equal(same[name]) for name in kept)


def test_a_training_that_was_to_stop_early_stops_when_it_is_resumed(workplace, monkeypatch):
    own = workplace.settings.sft
    own.warmup, own.learning_rate, own.epochs, own.validation_steps, own.patience = 0.99, 0.15, 3, 1, 1
    own.log_steps = 100
    whole, kept = trained(workplace, "sft")

    def kill(trainer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SharedPrefixSFTTrainer, "_load_best_model", kill)
        trained(workplace, "sft")
    resumed, same = trained(workplace, "sft")
    for key in ("steps", "best_step", "validation_loss", "final_loss"):
        assert resumed[key] == whole[key]
    assert all(kept[name].equal(same[name]) for name in kept)


def test_a_signal_during_a_validation_stops_the_training_after_it(workplace, monkeypatch):
    workplace.settings.sft.validation_steps = 2
    monkeypatch.setattr(Progress, "on_evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated, match="stopped by SIGTERM after step 2 of"):
        trained(workplace, "sft")
    assert checkpoints.newest(workplace.layout.checkpoints("sft", workplace.run)).name == "checkpoint-2"


def test_trackers_are_told_which_checkpoints_there_are_with_the_validation_of_each(workplace):
    settings, layout, run = workplace.settings, workplace.layout, workplace.run
    settings.sft.validation_steps, settings.tracking = 2, ["tensorboard"]
    metrics, _ = trained(workplace, "sft")
    (path,) = journal.all_of(layout, run)
    events = [event for event, _ in journal.Journal(path).read()]
    curve = {event["step"]: event["values"] for event in events if event["kind"] == "curve"}
    assert len(curve) == sum(event["kind"] == "curve" for event in events) == metrics["steps"] >= 6
    *told, last = (event["kept"] for event in events if event["kind"] == "checkpoints")
    assert [kept[-1]["step"] for kept in told] == list(range(2, metrics["steps"] + 1, 2)) and last == []
    for entry in (entry for kept in told for entry in kept):
        said = curve[entry["step"]].items()
        assert entry["values"] == {name: value for name, value in said if name.startswith("validation/")}
        assert entry["values"]["validation/loss"] > 0
    assert {len(kept) for kept in told} == {1, 2}


def test_sft_is_validated_on_other_rows_and_trains_on_all_of_its_own(corpus):
    ours, _ = corpus.sft()
    both, held = held_out.add_rows(ours, ours, 3, seed=1)
    assert both[: len(ours)] == ours[:] and held == [len(ours), len(ours) + 1, len(ours) + 2]
    assert {row["id"] for row in both.select(held)} <= set(ours["id"])


def test_pairs_are_set_aside_by_image():
    images = [f"{number}.png" for number in range(30) for _ in range(1 + number % 3)]
    held = held_out.set_aside(images, 100, seed=1)
    assert 0 < len(held) <= len(images) / 10
    assert not {images[row] for row in held} & {
        image for row, image in enumerate(images) if row not in set(held)
    }
    assert held == held_out.set_aside(images, 100, seed=1) != held_out.set_aside(images, 100, seed=2)
    assert len(held_out.set_aside(images, 2, seed=1)) <= 2


def test_dpo_is_validated_on_pairs_of_unseen_images(workplace, caplog):
    """Its own pairs are all trained on; without others they are set aside, and it is said what that means."""
    workplace.settings.dpo.validation_steps = 2
    layout, run = workplace.layout, workplace.run
    own = list(files.read_jsonl(layout.preferences(run)))
    unseen = [{**row, "id": f"unseen-{row['id']}"} for row in own[:3]]
    files.write_jsonl(layout.validation_pairs(run), unseen)
    task = dpo_task(workplace.settings, layout, run, workplace.model)
    prepared = prepare(task)
    assert [prepared.dataset["id"][row] for row in prepared.held] == [row["id"] for row in unseen]
    assert prepared.schedule.rows == len(own) and not caplog.text
    metrics, _ = trained(workplace, "dpo")
    assert metrics["train_rows"] == len(own) and metrics["validation_loss"] > 0

    files.write_jsonl(layout.validation_pairs(run), [])
    task = dpo_task(workplace.settings, layout, run, workplace.model)
    assert task.validation_data is None and "favours what is memorised" in caplog.text
    workplace.settings.data.splits = "image_disjoint"
    with pytest.raises(UserError, match="no pair is of a validation image that SFT has not seen"):
        dpo_task(workplace.settings, layout, run, workplace.model)


def test_too_few_pairs_to_set_some_aside():
    with pytest.raises(UserError, match="of 9 pairs, no image's can be set aside"):
        held_out.set_aside(["a.png"] * 9, 100, seed=1)
