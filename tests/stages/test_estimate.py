"""The command prints what fits, writes its settings, and downloads nothing."""

import json
from pathlib import Path

import pytest

from workflow_scripts import estimate
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration import reading

ROOT = Path(__file__).parents[2]
RUN = ["--dataset", "slake", "--model_version", "4.1v", "--mode", "thinking"]
CONFIG = ["--config", str(ROOT / "config.yaml")]


def test_it_prints_a_table_and_writes_settings(tmp_path, capsys):
    written = tmp_path / "mine.yaml"
    assert (
        estimate.main([*RUN, *CONFIG, "--results", str(tmp_path), "--gpu", "24GB", "--write", str(written)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "10,292,777,472" in printed and "QLoRA on 1 GPU(s)" in printed
    assert "\nDPO by the settings below: 20.2 GiB a GPU at most\n" in printed
    assert max(map(len, printed.splitlines())) <= 135
    settings = reading.load([ROOT / "config.yaml", written])
    assert settings.sft.lora.quantize == settings.dpo.lora.quantize == "4bit"
    assert list(tmp_path.iterdir()) == [written]  # nothing was fetched


def test_it_prints_json(tmp_path, capsys):
    assert (
        estimate.main([*RUN, *CONFIG, "--results", str(tmp_path), "--gpu", "80", "--json", "--rate", "100"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    lora = found["ways"]["LoRA"]
    assert found["recommended"] == "LoRA" and lora["fits"] and lora["trained"] == 190_382_080
    assert found["rate_tflops"] == 100 and sum(lora["bytes"].values()) < 80 * 2**30


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--gpu", "80GB", "--gpus", "3"], "multiples of it"),
        (["--gpu", "8GB", "--gpus", "1", "--write", "no.yaml"], "nothing fits"),
        (["--gpu", "80GB", "--dataset", "lake"], "did you mean 'slake'"),
    ],
)
def test_what_cannot_be_estimated_is_said(tmp_path, capsys, flags, message):
    with pytest.raises(UserError, match=message):
        estimate.main([*RUN, *CONFIG, "--results", str(tmp_path), *flags])


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpu", "much"],
        ["--gpu", "0GB"],
        ["--gpu", "24GB", "--rate", "-1"],
        ["--gpu", "24GB", "--gpus", "0"],
    ],
)
def test_flags_are_checked(capsys, flags):
    with pytest.raises(SystemExit):
        estimate.main([*RUN, *flags])
    assert "error: argument" in capsys.readouterr().err
