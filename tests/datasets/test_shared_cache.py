"""Users of a machine who share one cache of the hub: real accounts, where one cannot write the files of others at will."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Fault

from workflow_scripts.base import files
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
COLLEAGUES, STRANGER = (61001, 61002), 61003  # numbers of accounts
GROUP = 61000  # of the colleagues
WEIGHTS = "model.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can act as several users"
    ),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that each account may enter, unlike pytest's; in it `cache` of the group and `work` of everybody."""
    with tempfile.TemporaryDirectory(prefix="cache-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "cache").mkdir()
        os.chown(place / "cache", COLLEAGUES[0], GROUP)
        (place / "cache").chmod(0o2775)  # as an administrator makes a folder of a group
        (place / "work").mkdir()
        (place / "work").chmod(0o1777)
        yield place


@pytest.fixture
def download(server, place) -> Callable[[int, str], subprocess.Popen]:
    """Start the download of a model as a user: one of the group, whose files are the group's, or a stranger."""

    def start(user: int, version: str) -> subprocess.Popen:
        folder = place / "work" / f"{user}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, user, user)
        models = {name: {"base": {"repository": f"group/{name}"}} for name in ("4.1v", "4.6v-flash")}
        settings = {
            "datasets": {"slake": {"reader": "slake", "embedded": 10}},
            "models": models,
            "tracking": [],
        }
        (folder / "config.yaml").write_text(json.dumps(settings))
        environment = server.environment(place / "cache")
        environment |= {"HOME": str(folder), "HF_HUB_DOWNLOAD_TIMEOUT": "300"}  # while the server holds on
        member = user in COLLEAGUES
        # It may read and enter all, since Python and the project may lie in root's folder.
        account = [f"--reuid={user}", f"--regid={GROUP if member else user}", "--clear-groups"]
        rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
        command = [sys.executable, "-m", "workflow_scripts.download", "--model_version", version]
        return subprocess.Popen(
            ["setpriv", *account, *rights, *command, "--mode", "base"],
            cwd=folder,
            env=environment,
            umask=0o002 if member else 0o022,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def end(process: subprocess.Popen) -> str:
    """What a download says until its end."""
    return process.communicate(timeout=400)[0]


def model(version: str, folder: Path) -> dict[str, bytes]:
    standins.save(VERSIONS[version], "base", folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_users_fetch_each_file_once_and_others_read_it(server, place, download, tmp_path):
    contents = model("4.1v", tmp_path / "model")
    server.add("model", "group/4.1v", contents)
    server.misbehave(WEIGHTS, [Fault(hold_after=100_000)])
    both = [download(user, "4.1v") for user in COLLEAGUES]
    until = time.monotonic() + 300
    while sum(server.sent.values()) < 100_000 or not all(
        (place / f"work/{u}/results").exists() for u in COLLEAGUES
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    server.go_on.set()
    said = list(map(end, both))
    assert [process.returncode for process in both] == [0, 0], said
    assert server.sent[WEIGHTS] == len(contents[WEIGHTS])

    reader = download(STRANGER, "4.1v")  # who may not write the cache
    said = end(reader)
    assert reader.returncode == 0, said
    # They may read everything here anyway, as Python may lie in root's folder: so look at what the files allow.
    for path in (place / "cache").rglob("*"):
        allowed = path.stat().st_mode
        assert allowed & stat.S_IRGRP and (not path.is_dir() or allowed & stat.S_IWGRP), path
    for user in (*COLLEAGUES, STRANGER):
        folder = place / f"work/{user}/results/models/4.1v_base"
        assert {name: (folder / name).read_bytes() for name in contents} == contents
        listed = files.read_json(folder / "manifest.json")["files"]
        assert all(files.sha256(folder / name) == entry["sha256"] for name, entry in listed.items())
    assert server.sent[WEIGHTS] == len(contents[WEIGHTS])


def test_who_may_not_write_the_cache_is_told_and_changes_nothing(server, place, download, tmp_path):
    for version in ("4.1v", "4.6v-flash"):
        server.add("model", f"group/{version}", model(version, tmp_path / version))
    first = download(COLLEAGUES[0], "4.1v")
    said = end(first)
    assert first.returncode == 0, said
    before = {path: path.lstat().st_mtime_ns for path in (place / "cache").rglob("*")}
    stranger = download(STRANGER, "4.6v-flash")
    said = end(stranger)
    assert stranger.returncode == 1
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert "set HF_HOME to a folder that you may write in" in line and "Traceback" not in said
    assert {path: path.lstat().st_mtime_ns for path in (place / "cache").rglob("*")} == before
    assert not (place / f"work/{STRANGER}/results/models/4.6v-flash_base").exists()
