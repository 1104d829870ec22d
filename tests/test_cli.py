"""Errors that a person can mend are one line; everything else stays a traceback."""

import os
import subprocess

import pytest

from workflow_scripts import cli, convert, download, files
from workflow_scripts.errors import UserError
from workflow_scripts.paths import Run


def failing(error: BaseException):
    def main(arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("a.json: no such file"), "error: a.json: no such file"),
        (KeyboardInterrupt(), "error: stopped"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "error: the disk is full"),
    ],
)
def test_one_line_and_status_one(error, expected, capsys):
    assert cli.run(failing(error), []) == 1
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 1 and written[0].startswith(expected)


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(failing(ZeroDivisionError()), [])


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(small_disk, capsys, monkeypatch):
    config = small_disk / "config.yaml"
    config.write_text("datasets: {slake: {reader: slake, embedded: 30}}\ntracking: []\n")
    monkeypatch.chdir(small_disk)
    flags = ["--config", str(config), "--dataset", "slake"]
    assert cli.run(download.main, flags) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert [path.name for path in (small_disk / "results" / "raw").iterdir()] == []
    assert cli.run(convert.main, [*flags, "--model_version", "4.1v", "--mode", "base"]) == 1
    assert os.listdir(small_disk / "results") == ["raw"]


@pytest.fixture
def model(tmp_path):
    """Make a folder with the metrics.json of a training."""

    def make(name: str, **metrics):
        folder = tmp_path / name
        folder.mkdir()
        if metrics:
            files.write_json(folder / "metrics.json", metrics)
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "metrics", "known"),
    [
        ("best", {"run": "slake_4.1v_base"}, ("slake", "4.1v", "base")),
        ("rad_4.5v_thinking", {"run": "slake_4.1v_base"}, ("slake", "4.1v", "base")),
        ("rad_4.5v_thinking", {"loss": 1.0}, ("rad", "4.5v", "thinking")),
        ("rad_4.5v_thinking", {}, ("rad", "4.5v", "thinking")),
        ("4.1v_base", {}, (None, "4.1v", "base")),
        ("my_rad_4.1v_base", {}, (None, None, None)),
        ("best_4.1v", {}, (None, None, None)),
        ("checkpoint-3", {}, (None, None, None)),
    ],
)
def test_a_model_tells_the_run_that_trained_it(model, name, metrics, known):
    found = cli.names_of_model(model(name, **metrics))
    assert tuple(map(found.get, cli.RUN_FLAGS)) == known


def test_training_takes_the_names_that_are_left_out_from_the_model(model, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    config, flags = (
        ["--config", str(tmp_path / "config.yaml")],
        ["--dataset", "combined", "--model_version", "4.1v"],
    )
    trained = model("sft", run="slake_4.1v_base")
    options = cli.training_options("dpo", "", [*config, *flags, "--base_model", str(trained)])
    assert options.run == Run("combined", "4.1v", "base")
    with pytest.raises(UserError, match=r"^say --mode: neither metrics.json nor .*unnamed tells$"):
        cli.training_options("dpo", "", [*config, *flags, "--base_model", str(model("unnamed"))])
    with pytest.raises(UserError, match=r"^say --model_version and --mode$"):
        cli.training_options("dpo", "", [*config, "--dataset", "rad"])
