"""The real command against a hub on this machine: the whole way of a data set and a model, killed and resumed."""

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import forked
import pytest
from hub_server import Fault

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.phantoms.layouts import write_rad, write_slake
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import download

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_secretsecretsecret"


@pytest.fixture(scope="module")
def slake(tmp_path_factory) -> dict[str, bytes]:
    """Phantoms as SLAKE lies on the hub: imgs/ and KG/ as archives, validation.json."""
    folder = tmp_path_factory.mktemp("slake")
    write_slake(folder, 10, seed=1)
    contents = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    contents["validation.json"] = contents.pop("validate.json")
    return contents | {f"{name}.zip": packed(folder, name) for name in ("imgs", "KG")}


def packed(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / name).rglob("*")):
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


@pytest.fixture
def world(server, tmp_path) -> dict[str, str]:
    """An environment that has no hub but the server, beside a configuration of a set and a model there."""
    source = {"reader": "slake", "repository": "group/slake", "revision": "main", "licence": "none"}
    checkpoint = {"repository": "group/model"}
    settings = {"datasets": {"slake": source}, "models": {"4.1v": {"base": checkpoint}}, "tracking": []}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    return server.environment(tmp_path / "home") | {"HF_TOKEN": TOKEN, "HF_HUB_DOWNLOAD_TIMEOUT": "60"}


@pytest.fixture
def command(world, tmp_path):
    """What starts the command with the flags given."""

    def start(*flags: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "workflow_scripts.download", *flags],
            cwd=tmp_path,
            env=world | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def run(world, tmp_path):
    """Runs the command to its end, whose status must be the one given; returns what it says."""

    def done(*flags: str, status: int = 0, **variables: str) -> str:
        module = "workflow_scripts.download"
        process = forked.run(module, *flags, folder=tmp_path, environment=world | variables)
        output = process.stdout + process.stderr
        assert process.returncode == status, output
        return output

    return done


def test_a_data_set_comes_from_the_hub_to_the_reader(server, slake, run, tmp_path):
    repository = server.add("dataset", "group/slake", slake)
    output = run("--dataset", "slake")
    raw = tmp_path / "results" / "raw" / "slake"
    manifest = files.read_json(raw / "manifest.json")
    assert manifest["origin"]["commit"] == repository.commit
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": (raw / name).stat().st_size, "sha256": files.sha256(raw / name)}
    assert {*slake, "imgs/xmlab1/source.jpg", "KG/en_disease.csv"} <= set(manifest["files"])
    examples = list(READERS["slake"](raw))
    assert len(examples) == sum(
        len(json.loads(slake[f"{name}.json"])) for name in ("train", "validation", "test")
    )
    assert all((raw / example.image).is_file() for example in examples)
    # In a log, progress is whole lines.
    assert "\r" not in output and "dataset group/slake: 0.00B of " in output
    assert output.splitlines()[-1].endswith("slake: in results/raw/slake")


def test_a_model_comes_from_the_hub_and_loads(server, run, tmp_path):
    standins.save(VERSIONS["4.1v"], "base", tmp_path / "model")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    server.add("model", "group/model", contents | {"README.md": b"# A model"})
    run("--model_version", "4.1v", "--mode", "base")
    folder = tmp_path / "results" / "models" / "4.1v_base"
    assert {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"
    } == contents
    run("--model_version", "4.1v", "--mode", "base", "--verify")
    shutil.rmtree(folder)
    server.stop()
    run("--model_version", "4.1v", "--mode", "base", HF_HUB_OFFLINE="1")
    run("--model_version", "4.1v", "--mode", "base", "--verify", HF_HUB_OFFLINE="1")
    server.start()


@pytest.mark.parametrize("share", [0.5, 0.01])  # the latter is less than a buffer of Python holds
def test_a_killed_download_goes_on_where_it_was(server, slake, command, run, tmp_path, share):
    server.add("dataset", "group/slake", slake)
    arrived = int(share * len(slake["imgs.zip"]))
    server.misbehave("imgs.zip", [Fault(hold_after=arrived)])
    process = command("--dataset", "slake")
    deadline = time.monotonic() + 60
    while [path.stat().st_size for path in (tmp_path / "home").rglob("*.incomplete")] != [arrived]:
        assert time.monotonic() < deadline, "what has arrived is not on the disk"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    raw = tmp_path / "results" / "raw"
    assert not (raw / "slake").exists()
    server.go_on.set()
    while any("process_request" in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)  # until the server finds the connection closed
    server.sent.clear()
    run("--dataset", "slake")
    assert server.sent == {"imgs.zip": len(slake["imgs.zip"]) - arrived}
    assert len(list(READERS["slake"](raw / "slake"))) > 0


def test_a_second_download_of_the_same_ends_and_the_first_does_not(server, slake, command, run, tmp_path):
    server.add("dataset", "group/slake", slake)
    server.misbehave("imgs.zip", [Fault(hold_after=1000)])
    first = command("--dataset", "slake")
    lock = tmp_path / "results" / "raw" / ".slake.lock"
    deadline = time.monotonic() + 60
    while not lock.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    output = run("--dataset", "slake", status=1)
    said = f"error: results/raw/slake: another command writes it ({socket.gethostname()}, process {first.pid}, since "
    assert output.startswith(said) and "Traceback" not in output
    server.go_on.set()
    assert first.communicate(timeout=60)[0].endswith("slake: in results/raw/slake\n") and not first.returncode
    run("--dataset", "slake", "--verify")
    assert not lock.exists()


def test_an_archive_that_tries_to_escape_leaves_nothing(server, slake, run, tmp_path):
    buffer = io.BytesIO(slake["imgs.zip"])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../../escaped.txt", "out")
    server.add("dataset", "group/slake", slake | {"imgs.zip": buffer.getvalue()})
    output = run("--dataset", "slake", status=1)
    assert "imgs.zip: the member '../../escaped.txt' points outside the folder; refused" in output
    assert "Traceback" not in output
    assert list((tmp_path / "results" / "raw").iterdir()) == []
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("debug", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_token_is_written_nowhere(server, slake, run, tmp_path, debug):
    server.add("dataset", "group/slake", slake)
    flags = ["--dataset", "slake", *(["--debug"] if debug else [])]
    variables = {"HF_DEBUG": "1", "MEDVQA_LOG": "logs/download/slake.log"} if debug else {}
    server.misbehave("train.json", [Fault(status=429, headers={"Retry-After": "0"})])
    output = run(*flags, **variables)
    # The server answers a refusal with the token that it was sent.
    for what, status in (("listing", 401), ("imgs.zip", 403), ("imgs.zip", 400)):
        server.misbehave(
            what, [Fault(status=status, headers={"X-Error-Message": f"Bearer {TOKEN} is wrong"})]
        )
        for path in (tmp_path / "home").rglob("blobs/*"):
            path.unlink()
        output += run(*flags, status=1, MEDVQA_INVOCATION=f"{what} {status}", **variables)
    assert server.tokens["127.0.0.1"] == {f"Bearer {TOKEN}"}
    assert TOKEN not in output
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in written)
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    logs = [path.read_text() for path in written if path.name == "slake.jsonl"]
    assert [log.count("Traceback") >= 3 for log in logs] == [True] * debug


def test_a_folder_is_verified_against_its_manifest(tmp_path):
    raw = tmp_path / "rad"
    write_rad(raw, 5, seed=0)
    download._write_manifest(raw, {}, {})
    download._verify(raw)
    names = sorted(files.read_json(raw / "manifest.json")["files"])
    (raw / names[0]).unlink()
    damaged = raw / names[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(
        UserError, match=f"2 of {len(names)} files are missing or not what .* {names[0]}, {names[1]};"
    ):
        download._verify(raw)
    with pytest.raises(UserError, match=r"nowhere/manifest\.json: no such file"):
        download._verify(tmp_path / "nowhere")
