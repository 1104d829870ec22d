"""Errors that a person can mend are one line; everything else stays a traceback."""

import os
import subprocess

import pytest

from workflow_scripts import cli, convert, download
from workflow_scripts.errors import UserError


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
