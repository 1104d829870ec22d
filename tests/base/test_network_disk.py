"""One writer at a time on a network disk that two machines have mounted: sshfs, with its own caches on each side."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def mounts(tmp_path):
    """The same folder of a server, as two machines have it."""
    server = next((path for path in SERVERS if path.is_file()), None)
    if not (shutil.which("sshfs") and server and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("needs sshfs, OpenSSH's sftp-server and /dev/fuse")
    transport = tmp_path / "transport.sh"
    transport.write_text(f"#!/bin/sh\nexec {server}\n")
    transport.chmod(0o755)
    (tmp_path / "disk").mkdir()
    mounted: list[Path] = []
    try:
        for name in ("first", "second"):
            (place := tmp_path / name).mkdir()
            command = [
                "sshfs",
                "-o",
                f"ssh_command={transport}",
                f"localhost:{tmp_path / 'disk'}",
                str(place),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            if done.returncode:
                pytest.skip(f"sshfs cannot mount here: {done.stderr.strip()}")
            mounted.append(place)
        yield mounted
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_two_machines_write_one_after_the_other(mounts, tmp_path):
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", MACHINE, str(place), place.name, str(ROUNDS)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in mounts
    ]
    for machine in machines:
        _, said = machine.communicate(timeout=120)
        assert machine.returncode == 0, said
    assert (tmp_path / "disk" / "counter").read_text() == str(2 * ROUNDS)
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["counter"]
