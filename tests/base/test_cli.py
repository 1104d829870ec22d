"""Errors that a person can mend are one line; everything else stays a traceback."""

import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

import workflow_scripts
from workflow_scripts import convert, download, dpo, evaluate, preferences, sft
from workflow_scripts.base import cli, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Run
from workflow_scripts.configuration import flags

ROOT = Path(__file__).resolve().parents[2]


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
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.json"), "error: your quota of the disk"),
        (
            RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),
            "error: a checkpoint",
        ),
    ],
)
def test_one_line_and_status_one(error, expected, capsys):
    assert cli.run(failing(error), []) == 1
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 1 and written[0].startswith(expected)


def test_debugging_tells_the_versions_and_the_machine(caplog):
    with caplog.at_level(logging.DEBUG):
        assert cli.run(lambda arguments: 0, []) == 0
        assert not caplog.messages
        assert cli.run(lambda arguments: 0, ["--debug"]) == 0
    said = "\n".join(caplog.messages)
    assert f"medvqa {workflow_scripts.__version__}" in said and "Python 3." in said and "cores" in said
    assert f"transformers {metadata.version('transformers')}" in said


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(failing(ZeroDivisionError()), [])


@pytest.fixture(params=["size=600k", "nr_inodes=20"])
def small_disk(request, tmp_path):
    """A disk of 600 kB, or of 20 files."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_one_line_leaves_nothing_half_written_and_goes_on(small_disk, capsys, monkeypatch):
    config = small_disk / "config.yaml"
    config.write_text("datasets: {slake: {reader: slake, embedded: 30}}\ntracking: []\n")
    monkeypatch.chdir(small_disk)
    flags = ["--config", str(config), "--dataset", "slake"]
    assert cli.run(download.main, flags) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert [path.name for path in (small_disk / "results" / "raw").iterdir()] == []
    assert cli.run(convert.main, [*flags, "--model_version", "4.1v", "--mode", "base"]) == 1
    assert not list((small_disk / "results" / "data").rglob("*"))

    subprocess.run(["mount", "-o", "remount,size=60m,nr_inodes=10k", str(small_disk)], check=True)
    assert cli.run(download.main, flags) == 0
    assert cli.run(convert.main, [*flags, "--model_version", "4.1v", "--mode", "base"]) == 0
    assert (small_disk / "results/data/slake_4.1v_base/summary.json").is_file()


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
    found = flags.names_of_model(model(name, **metrics))
    assert tuple(map(found.get, flags.RUN_FLAGS)) == known


def test_training_takes_the_names_that_are_left_out_from_the_model(model, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    config, names = (
        ["--config", str(tmp_path / "config.yaml")],
        ["--dataset", "combined", "--model_version", "4.1v"],
    )
    trained = model("sft", run="slake_4.1v_base")
    options = flags.training_options("dpo", "", [*config, *names, "--base_model", str(trained)])
    assert options.run == Run("combined", "4.1v", "base")
    with pytest.raises(UserError, match=r"^say --mode: neither metrics.json nor .*unnamed tells$"):
        flags.training_options("dpo", "", [*config, *names, "--base_model", str(model("unnamed"))])
    with pytest.raises(UserError, match=r"^say --model_version and --mode$"):
        flags.training_options("dpo", "", [*config, "--dataset", "rad"])


@pytest.fixture
def interrupted_download(tmp_path):
    """Start a download of many phantoms, send it a signal once it writes, and give the process back."""
    (tmp_path / "config.yaml").write_text(
        "datasets: {slake: {reader: slake, embedded: 5000}}\ntracking: []\n"
    )

    def interrupt(number: int) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "workflow_scripts.download", "--dataset", "slake"]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        # Not during its imports: what is raised within one may come out as another error.
        while len(list(tmp_path.glob("results/raw/.slake.*.tmp/imgs/*/*"))) < 4:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, stderr=said)

    return interrupt


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_removes_what_was_half_written(interrupted_download, tmp_path, number, status):
    stopped = interrupted_download(number)
    assert (stopped.returncode, stopped.stderr) == (status, f"error: stopped by {number.name}\n")
    assert os.listdir(tmp_path / "results" / "raw") == []


def test_what_a_killed_process_left_is_removed_by_the_next(interrupted_download, tmp_path):
    assert interrupted_download(signal.SIGKILL).returncode == -signal.SIGKILL
    raw = tmp_path / "results" / "raw"
    lock = ".slake.lock"  # of which the next download of the same finds that its holder is gone
    assert len(os.listdir(raw)) == 2
    with files.replacing(raw / "other.json") as temporary:
        assert os.listdir(raw) == [lock]
        temporary.write_text("{}")
    assert sorted(os.listdir(raw)) == [lock, "other.json"]


def test_a_signal_is_not_lost_in_a_finalizer(capsys):
    """Python ignores what is raised there, wherever the signal happens to come."""

    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def main(arguments):
        Finalized()
        time.sleep(10)
        return 0

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM), sys.unraisablehook
    assert cli.run(main, []) == 143
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM), sys.unraisablehook) == before


def test_sigterm_can_be_handled_by_a_command_and_kills_its_workers(capfd):
    def main(arguments):
        forked = multiprocessing.get_context("fork")
        started = forked.Event()
        worker = forked.Process(target=lambda: started.set() or time.sleep(30))
        worker.start()
        started.wait()
        worker.terminate()
        worker.join()
        received = []
        signal.signal(signal.SIGTERM, lambda *_: received.append(worker.exitcode))
        os.kill(os.getpid(), signal.SIGTERM)
        return received[0]

    before = signal.getsignal(signal.SIGTERM)
    assert cli.run(main, []) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before and "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (False, "info")),
        (["--log_level", "warning"], (False, "warning")),
        (["--log_level=debug"], (False, "debug")),
        (["--dataset", "x", "--debug"], (True, "debug")),
        (["--log_level", "loud"], (False, "info")),
        (["--log_level"], (False, "info")),
    ],
)
def test_the_verbosity_is_known_before_a_command_parses_its_flags(flags, expected):
    assert cli._verbosity(flags) == expected


def test_a_path_that_cannot_be_used_is_one_line(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("datasets: {slake: {reader: slake, embedded: 30}}\ntracking: []\n")
    (tmp_path / "file").write_text("")
    results = str(tmp_path / "file" / "results")
    assert cli.run(download.main, ["--config", str(config), "--dataset", "slake", "--results", results]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file") and "Not a directory; give another path" in line
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("arguments", [["--datset", "slake"], [], ["--dataset"]])
def test_a_wrong_flag_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run(convert.main, arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and line.startswith("error: ") and "--help" in line


@pytest.mark.parametrize(
    ("command", "flag"),
    [(evaluate, "--model_path"), (preferences, "--sft_model"), (sft, "--base_model"), (dpo, "--base_model")],
)
def test_a_model_that_is_not_there_is_one_line(command, flag, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = ["--dataset", "slake", "--model_version", "4.1v", "--mode", "base"]
    assert cli.run(command.main, [*names, flag, "results/sft/slak"]) == 1
    expected = "error: results/sft/slak: no such folder; give that of a model or an adapter"
    assert capsys.readouterr().err.splitlines() == [expected]


@pytest.mark.parametrize("content", ["[]", '{"run": 3}', "\x00", '{"run": "\\ud800"}', "[" * 99_999])
def test_a_model_whose_metrics_are_something_else_is_one_line(content, model, capsys):
    folder = model("model")
    (folder / "metrics.json").write_text(content)
    assert cli.run(evaluate.main, ["--model_path", str(folder)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
