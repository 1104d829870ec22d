"""`make open` and `make mlflow`: they show what is there, or say what to do."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path):
    """Call make in a folder of its own, where only programs put into bin/ can show anything; no set-up is done."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "env"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python").symlink_to(sys.executable)

    def call(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "--no-print-directory", "READY=", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PATH": str(programs)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def program(path: Path, status: int = 0) -> None:
    path.write_text(f'#!/bin/sh\necho "$@" >> {path}.called\nexit {status}\n')
    path.chmod(0o755)


def result(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("target", ["open", "mlflow"])
def test_without_results_it_says_what_to_run(make, target):
    done = make(target)
    assert done.returncode and done.stderr.startswith("error: results/") and "`make demo`" in done.stderr


def test_the_report_is_opened_by_the_first_program_that_can(make, tmp_path):
    result(tmp_path / "results/report/index.html")
    program(tmp_path / "bin/xdg-open", status=3)  # as without a display
    program(tmp_path / "bin/open")
    done = make("open")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "bin/open.called").read_text() == "results/report/index.html\n"


def test_where_no_program_can_the_path_is_said(make, tmp_path):
    page = result(tmp_path / "results/report/index.html")
    done = make("open")
    assert done.returncode == 0 and done.stdout.rstrip().endswith(str(page))


def test_mlflow_serves_the_store_on_this_machine_alone(make, tmp_path):
    result(tmp_path / "results/mlflow.db")
    program(tmp_path / "bin/mlflow")
    python = tmp_path / "bin/python"  # of which the commands of the package are left out
    python.unlink()  # a link to the real one
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = make("mlflow", f"PORT={port}")
    assert done.returncode == 0 and f"http://127.0.0.1:{port}" in done.stdout
    called = (tmp_path / "bin/mlflow.called").read_text()
    assert called.endswith(
        f"--host 127.0.0.1 --port {port} --backend-store-uri sqlite:///results/mlflow.db\n"
    )


def test_a_port_in_use_is_said(make, tmp_path):
    result(tmp_path / "results/mlflow.db")
    program(tmp_path / "bin/mlflow")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = make("mlflow", f"PORT={port}")
    assert done.returncode and f"port {port} is in use; try `make mlflow PORT={port + 1}`" in done.stderr
    assert not (tmp_path / "bin/mlflow.called").exists()
