"""What stops a training: a loss or gradient that is not finite, and memory that runs out."""

import logging
import math
import re
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from test_resume import MODE, Workplace
from trl import SFTConfig

from workflow_scripts import sft as command
from workflow_scripts.base import attempts, cli, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration import reading
from workflow_scripts.configuration.settings import Lora, LossWeights, Sft
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import sft
from workflow_scripts.training import activations, checkpoints, memory, run
from workflow_scripts.training.arguments import recompute
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer, build

VERSION = "4.1v"


@pytest.fixture
def work(tmp_path, monkeypatch):
    made = Workplace(tmp_path / "work", VERSION)
    monkeypatch.chdir(made.folder)
    return made


def train(work, made: type, /, **changes) -> dict:
    """SFT in this process, by the class `made`, and validated on its own rows where `changes` ask for that."""
    work.configure(**changes)

    settings = reading.load([work.folder / "config.yaml"])
    task = sft.task(settings, work.layout, work.run, work.layout.model(VERSION, MODE))
    objective = replace(task.objective, build=partial(build, LossWeights(), trainer=made))
    return run.train(replace(task, objective=objective, data=work.data, validation_data=work.data))


def named_rows(message: str) -> set[str]:
    return set(re.search(r"in the rows (.*?);", message)[1].split(", "))


@pytest.mark.parametrize("save_steps", [1, 100])
def test_weights_that_overflow_are_no_checkpoint(work, capsys, monkeypatch, save_steps):
    log = work.layout.log("sft", str(work.run))
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(log))
    work.configure(learning_rate=1e38, save_steps=save_steps, warmup=0.2)
    assert cli.run(command.main, work.flags()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    step = int(re.search(r"error: (?:the loss is nan|weights are not finite) at step (\d+)", error)[1])
    (failed,) = (line for line in files.read_jsonl(log.with_suffix(".jsonl")) if line["error"])
    assert f"at step {step}" in failed["message"] and failed["step"] in (
        step,
        step + 1,
    )  # as the next one begins
    kept = checkpoints.newest(work.layout.checkpoints("sft", work.run))
    if save_steps == 1:  # the first update has a learning rate of 0
        assert int(kept.name.split("-")[1]) == step - 1
        values = load_file(kept / "adapter_model.safetensors").values()
        assert all(torch.isfinite(value).all() for value in values)
    told = kept.relative_to(work.folder) if kept else "none yet"
    assert f"the last good checkpoint is {told};" in error
    assert named_rows(error) <= {row["id"] for row in files.read_jsonl(work.data)}


class Poisoned(SharedPrefixSFTTrainer):
    """A row's answer makes the loss infinite; which row that is, is seen in the model's input alone."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        wanted = str(self.train_dataset[5]["completion_ids"])[1:-1]
        return loss * math.inf if any(wanted in str(row) for row in inputs["input_ids"].tolist()) else loss


def test_the_rows_named_are_those_of_the_loss(work):
    """Where no gradient is clipped, too: losses are looked at beside the norm."""
    with pytest.raises(UserError, match="the loss is inf at step ") as error:
        train(work, Poisoned, trainer={"max_grad_norm": 0.0})
    bad = list(files.read_jsonl(work.data))[5]["id"]
    assert bad in named_rows(str(error.value)) and len(named_rows(str(error.value))) <= 2


class Exploding(SharedPrefixSFTTrainer):
    """The gradient of the third step is infinite where its loss is not."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 2:
            next(value for value in self.model.parameters() if value.grad is not None).grad.fill_(math.inf)
        return loss


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(work):
    with pytest.raises(UserError, match="the gradient's norm is (inf|nan) at step 3, in the rows ") as error:
        train(work, Exploding, save_steps=1)
    assert len(named_rows(str(error.value))) <= 4
    assert "checkpoint-2;" in str(error.value)


class SmallMemory(SharedPrefixSFTTrainer):
    """No room for more than 80 tokens of a tree."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if inputs["tree"]["input_ids"].numel() > 80:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss


def test_out_of_memory_says_what_to_change(work):
    with pytest.raises(memory.OutOfMemory) as error:
        train(work, SmallMemory)
    said = str(error.value)
    step, count, tokens = map(
        int, re.search(r"at step (\d+), in a batch of (\d) rows and (\d+) tokens", said).groups()
    )
    assert 1 <= step <= 11 and count <= 2 and tokens > 60
    assert f"sft.micro_batch_tokens (16384) below {tokens};" in said
    images = int(
        re.search(r"data.max_image_side \(768\) lower: (\d+) of these tokens are of images", said)[1]
    )
    assert 10 <= images < tokens
    assert "sft.gradient_checkpointing: true; sft.strategy: zero3 on more GPUs" in said


@pytest.mark.slow
def test_a_smaller_budget_is_tried_as_often_as_configured(work, caplog):
    with caplog.at_level(logging.WARNING):
        metrics = train(work, SmallMemory, oom_retries=2, micro_batch_tokens=120)
    assert "out of GPU memory at step " in caplog.text
    assert "starting over with sft.micro_batch_tokens = 60" in caplog.text
    assert metrics["micro_batch_tokens"] == 60 and metrics["steps"] > 0


@pytest.mark.parametrize("training", [False, True])
def test_memory_runs_out_elsewhere_too(work, training):
    """In a validation, and before the first batch."""

    class NoMemory(SharedPrefixSFTTrainer):
        def compute_loss(self, model, *args, **kwargs):
            if not model.training:
                raise torch.OutOfMemoryError
            return super().compute_loss(model, *args, **kwargs)

        def create_optimizer(self, *args):
            if training:
                raise torch.OutOfMemoryError
            return super().create_optimizer(*args)

    said = (
        "beside the batches, by weights, optimiser or one image; set one of: "
        if training
        else "at step 1, in a batch of 2 rows and "
    )
    with pytest.raises(UserError, match=f"out of GPU memory {said}"):
        train(work, NoMemory, validation_steps=1, validation_rows=2)


@pytest.mark.slow
def test_other_weights_by_the_same_settings_have_another_fingerprint(work):
    changes = {"oom_retries": 2, "micro_batch_tokens": 120}
    found = []
    for trainer in (SharedPrefixSFTTrainer, SharedPrefixSFTTrainer, SmallMemory):
        found.append(train(work, trainer, **changes)["fingerprint"])
        shutil.rmtree(work.layout.trained("sft", work.run))  # what is there is not trained again
    assert found[0] == found[1] != found[2]


def test_old_checkpoints_go_once_the_new_one_is_whole(work, monkeypatch):
    folder, seen = work.layout.checkpoints("sft", work.run), []
    seal = checkpoints.seal

    def watched(checkpoint):
        seen.append(work.kept("sft"))
        assert all(checkpoints.is_whole(folder / f"checkpoint-{step}") for step in seen[-1][:-1])
        seal(checkpoint)

    monkeypatch.setattr(checkpoints, "seal", watched)
    train(work, SharedPrefixSFTTrainer, save_steps=1)
    assert seen[:4] == [[1], [1, 2], [1, 2, 3], [2, 3, 4]]


def test_after_the_last_try_the_error_is_final(work):
    class NoMemory(SmallMemory):
        def compute_loss(self, *args, **kwargs):
            raise torch.OutOfMemoryError

    with pytest.raises(memory.OutOfMemory, match=r"sft.micro_batch_tokens \(30\)"):
        train(work, NoMemory, oom_retries=2, micro_batch_tokens=120)


@pytest.mark.slow
def test_a_killed_retry_keeps_its_budget_until_a_parameter_changes(work):
    folder = work.layout.checkpoints("sft", work.run)
    with pytest.raises(memory.OutOfMemory):
        train(work, SmallMemory, oom_retries=0, micro_batch_tokens=120)
    settings = Sft(micro_batch_tokens=120, oom_retries=2)
    assert memory.halve(settings, folder) == 60
    assert memory.halve(settings, folder) == 60  # of another process that ran out in the same try
    same = files.read_json(folder / checkpoints.FINGERPRINT)
    assert memory.within_budget(settings, folder, same).micro_batch_tokens == 60
    assert memory.within_budget(settings, folder, same | {"data": "other"}).micro_batch_tokens == 120
    train(work, SmallMemory, oom_retries=0, micro_batch_tokens=120)


def test_activations_are_kept_where_they_fit():
    text = standins.model_config(VERSIONS["4.1v"]).text_config
    settings = Sft(lora=Lora(dropout=0.0))
    kept = activations.of_text_layer(text, activations.Kept(fused=True, rank=settings.lora.rank))
    needed = kept * text.num_hidden_layers * 1000

    def every(settings: Sft, share: float, config=text) -> int | None:
        return memory.recomputed(settings, config, 1000, int(share * needed / memory.ROOM))

    assert every(settings, 1.01) is None
    assert [every(settings, share) for share in (0.91, 0.51, 0.49, 0.0)] == [11, 2, 1, 1]
    assert every(Sft(), 1.01) > 1  # dropout keeps more
    assert every(Sft(gradient_checkpointing=True), 9) == 1
    assert every(Sft(gradient_checkpointing=False), 0) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full"},
        {"strategy": "zero3"},
        {"precision": "fp32"},
        {"lora": {"vision": True}},
        {"lora": {"quantize": "4bit"}},
    ],
)
def test_all_activations_are_recomputed_where_their_size_is_not_known(changes):
    text = standins.model_config(VERSIONS["4.1v"]).text_config
    assert memory.recomputed(Sft.model_validate(changes), text, 1, 2**40) == 1
    moe = standins.model_config(VERSIONS["4.5v"]).text_config
    assert memory.recomputed(Sft(), moe, 1, 2**40) == 1
    assert memory.free(torch.device("cpu")) == 0


@pytest.mark.parametrize("every", [None, 1, 2])
def test_the_trainer_is_told_by_both_names(tmp_path, every):
    found = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    recompute(found, every)
    assert found.activation_checkpointing is found.gradient_checkpointing is (every is not None)
    assert found.gradient_checkpointing_kwargs.get("every_n_layers") == (
        every if every and every > 1 else None
    )


def test_a_smaller_budget_recomputes_all(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.checkpoints, "belong", lambda *_: True)
    files.write_json(tmp_path / memory.BUDGET, {"micro_batch_tokens": 60, "retries": 1})
    assert memory.within_budget(Sft(), tmp_path, {}).gradient_checkpointing is True
    kept = memory.within_budget(Sft(gradient_checkpointing=False), tmp_path, {})
    assert kept.gradient_checkpointing is False and kept.micro_batch_tokens == 60
