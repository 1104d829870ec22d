"""What a person sees of a training: real rows a second, rows an image, and a bar where there is a terminal."""

import logging
import os
import pty
import re
import sys
import termios
import threading
import time

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from workflow_scripts.base import files
from workflow_scripts.stages import status
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.training.data.batching import Load
from workflow_scripts.training.progress import Progress

LOADS = [
    Load(rows, images, 10 * images, tokens, 2 * tokens) for rows, images, tokens in ((8, 2, 50), (2, 1, 150))
]


def test_batches_of_different_size_count_their_own_rows(tmp_path, caplog, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(LOADS, tmp_path)
    arguments, state, control = TrainingArguments(str(tmp_path)), TrainerState(), TrainerControl()
    state.max_steps, state.global_step = 2, 0
    progress.on_train_begin(arguments, state, control)
    now, state.global_step = 104.0, 1
    with caplog.at_level(logging.INFO):
        progress.on_log(arguments, state, control, logs={"loss": 1.5, "learning_rate": 1e-4})
    # 8 rows in 4 seconds, two images; the second step has three times the tokens of the first.
    assert caplog.messages == ["step 1/2  loss 1.5000  lr 1.00e-04  2.0 rows/s  4.0 rows/image  00:12 left"]
    (tmp_path / "sft.log").write_text(f"12:00:00 {caplog.messages[0]}\n", encoding="utf-8")
    assert status.progress(tmp_path / "sft.log") == "step 1/2, loss 1.5000, 2.0 rows/s, 00:12 left"
    assert progress.done(2).rows == 10 and progress.done(2, first=1).rows == 2


def test_a_line_does_not_look_at_every_step(tmp_path, monkeypatch):
    progress = Progress([Load(rows=step) for step in range(1000)], tmp_path)
    added = []
    monkeypatch.setattr(Load, "__add__", lambda *loads: added.append(loads))
    assert progress.done(900).rows == sum(range(900)) and progress.done(1000, 900).rows == sum(
        range(900, 1000)
    )
    assert not added


def test_text_alone_has_no_image_to_share():
    assert Load(rows=3).image_reuse == 1.0


def test_a_stage_counts_each_row_once_an_epoch(workplace):
    metrics = sft(workplace.settings, workplace.layout, workplace.run, workplace.model)
    rows = sum(
        len(record["messages"]) // 2
        for record in files.read_jsonl(workplace.layout.split(workplace.run, "train"))
    )
    assert metrics["train_rows"] == rows
    assert metrics["examples_per_second"] * metrics["seconds"] == pytest.approx(2 * rows)
    assert 1 < metrics["image_reuse"] <= 4


def test_no_number_of_the_stage_has_the_name_of_a_curve(workplace):
    """It would be a point at step 0, behind the others."""
    workplace.settings.tracking, workplace.settings.sft.max_steps = ["tensorboard"], 2
    sft(workplace.settings, workplace.layout, workplace.run, workplace.model)
    (path,) = workplace.layout.journals().rglob("sft.jsonl")
    names = {"curve": set(), "metrics": set()}
    for event in files.read_jsonl(path):
        names.get(event["kind"], set()).update(event.get("values", {}))
    assert {"train/loss", "train/seconds"} <= names["curve"] and "train/final_loss" in names["metrics"]
    assert not names["curve"] & names["metrics"]


def test_a_terminal_has_a_bar(workplace, monkeypatch, caplog):
    workplace.settings.sft.max_steps = 3
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    written = []

    def read():
        while chunk := os.read(master, 4096):
            written.append(chunk)
            if b"THE END" in chunk:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal, caplog.at_level(logging.INFO):
        monkeypatch.setattr(sys, "stderr", terminal)
        sft(workplace.settings, workplace.layout, workplace.run, workplace.model)
        monkeypatch.undo()
        terminal.write("THE END\n")
        terminal.flush()
        reader.join()
    shown = b"".join(written).decode()
    assert re.search(r"3/3, loss \d+\.\d+  lr \S+  [\d.]+ rows/s  [\d.]+ rows/image  00:00 left", shown)
    assert not any("rows/s" in message for message in caplog.messages)
