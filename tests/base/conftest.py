"""Stand-ins for SLURM's commands."""

import stat

import pytest


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command("squeue", "echo 1")` puts a stand-in in the way."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")

    def install(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)

    for name in ("squeue", "sacct", "scontrol", "scancel", "sbatch"):
        install(name, "exit 1")  # and no real one of this machine
    return install
