import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CORES = os.environ.get("OMP_NUM_THREADS", "2")  # of a worker, or of a small machine


class Workflow:
    """The real Snakefile in a folder of its own, under a configuration laid over the project's."""

    def __init__(self, folder: Path, settings: dict, python: Path = Path(sys.executable)) -> None:
        self.folder = folder
        self.python = python
        limit = settings.get("limit")
        self.results = f"results/limited_{limit}" if limit else "results"
        shutil.copy(ROOT / "config.yaml", folder)
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self.environment["PATH"] = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        settings = ["--configfile", str(self.folder / "settings.yaml")]
        arguments = (*settings, *where, "--cores", CORES, *arguments)
        return forked.run("snakemake", *arguments, folder=self.folder, environment=self.environment)

    def command(self, stage: str, *arguments: str) -> subprocess.CompletedProcess:
        config = ["--config", "config.yaml", "settings.yaml"]
        return self._run([str(self.python), "-m", f"workflow_scripts.{stage}", *arguments, *config])

    def shell(self, line: str) -> subprocess.CompletedProcess:
        """A line of a terminal in the folder."""
        return self._run(["bash", "-e", "-o", "pipefail", "-c", line])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def __truediv__(self, path: str) -> Path:
        return self.folder / self.results / path


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Make a workflow from settings."""
    return lambda settings, **python: Workflow(tmp_path_factory.mktemp("workflow"), settings, **python)


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    """A `python` that runs commands without importing the heavy libraries again."""
    folder = tmp_path_factory.mktemp("preloaded")
    script = [sys.executable, str(Path(__file__).with_name("preloaded.py")), str(folder / "socket")]
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(script)} "$@"\n')
    python.chmod(0o755)
    with forked.served(folder / "socket"):
        yield python


@pytest.fixture
def stood_in(tmp_path) -> dict[str, str]:
    """An environment in which the workflow calls stand_in.py instead of its commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stand_in = Path(__file__).with_name("stand_in.py")
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    (folder / "python").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
