"""One writer at a time on a network disk that two machines have mounted: sshfs, with its own caches on each side."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from workflow_scripts.base import locks

ROOT = Path(__file__).resolve().parents[2]
SERVERS = [Path("/usr/lib/openssh/sftp-server"), Path("/usr/libexec/openssh/sftp-server")]
ROUNDS = 15
# Counts in a file, which is read and written again: what two do at once would be lost.
MACHINE = """
import sys, time
from pathlib import Path
from workflow_scripts.base import locks

root, name, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
locks._machine, locks.POLL = lambda: name, 0.02
for _ in range(rounds):
    with locks.one_writer(root / "output", "wait"):
        counter = root / "counter"
        count = int(counter.read_text()) if counter.exists() else 0
        time.sleep(0.002)
        counter.write_text(str(count + 1))
"""


# Holds a lock until its file `end` is there.
HOLDER = """
import sys, time
from pathlib import Path
from workflow_scripts.base import locks

locks._machine, locks.BEAT = lambda: "first", 0.2
with locks.one_writer(Path(sys.argv[1]) / "output", "end"):
    print("held", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)
"""
# A machine whose clock is ten minutes late.
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
LATE = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "-10m", "DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
def mount(tmp_path):
    """What mounts a folder of a server as the machine of a name has it, with its clock."""
    server = next((path for path in SERVERS if path.is_file()), None)
    if not (shutil.which("sshfs") and server and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("needs sshfs, OpenSSH's sftp-server and /dev/fuse")
    transport = tmp_path / "transport.sh"
    transport.write_text(f"#!/bin/sh\nunset LD_PRELOAD\nexec {server}\n")
    transport.chmod(0o755)
    (tmp_path / "disk").mkdir()

    def do(name: str, **clock: str) -> Path:
        (place := tmp_path / name).mkdir()
        disk = f"localhost:{tmp_path / 'disk'}"
        command = ["sshfs", "-o", f"ssh_command={transport}", disk, place]
        done = subprocess.run(
            command, env={**os.environ, **clock}, capture_output=True, text=True, timeout=30
        )
        if done.returncode:
            pytest.skip(f"sshfs cannot mount here: {done.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        return place

    with ExitStack() as stack:
        yield do


def test_two_machines_write_one_after_the_other(mount, tmp_path):
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", MACHINE, str(place), place.name, str(ROUNDS)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in (mount("first"), mount("second"))
    ]
    for machine in machines:
        _, said = machine.communicate(timeout=120)
        assert machine.returncode == 0, said
    assert (tmp_path / "disk" / "counter").read_text() == str(2 * ROUNDS)
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["counter"]


@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime")
def test_a_holder_whose_clock_is_late_is_not_taken_for_dead(mount, tmp_path, monkeypatch):
    first, second = mount("first", **LATE), mount("second")
    end = tmp_path / "end"
    command = [sys.executable, "-c", HOLDER, first, end]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    monkeypatch.setattr(locks, "_machine", lambda: "second")
    monkeypatch.setattr(locks, "SILENCE", 60.0)
    path = locks.lock_of(second / "output")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        until = time.monotonic() + 1  # five signs of life
        try:
            while time.monotonic() < until:
                assert isinstance(locks.take(path), locks.Holder)
                time.sleep(0.05)
        finally:
            end.touch()
    assert holder.returncode == 0
    assert not (tmp_path / "disk" / path.name).exists()
