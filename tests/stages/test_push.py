"""An upload of an export: what arrives is what was listed, after a yes, and an upload that was broken off goes on."""

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from receiving_hub import Repository

from workflow_scripts.base.errors import UserError
from workflow_scripts.stages.push import push

NAME = "user/model"
ROOT = Path(__file__).resolve().parents[2]
# huggingface_hub 2.4 sends files in the old way of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def bytes_of(name: str, size: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


CONTENTS = {
    "README.md": b"---\nlicense: mit\n---\n# A model\n",
    "config.json": b"{}\n",
    "model-00001-of-00002.safetensors": bytes_of("one", 100_000),  # in three parts
    "model-00002-of-00002.safetensors": bytes_of("two", 30_000),
    "tokenizer.json": bytes_of("words", 5_000),
    "merges.txt": b"",
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def folder(tmp_path) -> Path:
    """An export beside the data, images and log of its run, and with a folder of notes."""
    exported = tmp_path / "export" / "run"
    (exported / "notes").mkdir(parents=True)
    (exported / "notes" / "README.md").write_text("not listed")
    for name in ("train.jsonl", "scan.png", "sft.log", "token"):
        (exported.parent / name).write_text(f"private: {name}")
    for name, data in CONTENTS.items():
        (exported / name).write_bytes(data)
    return exported


def answer(monkeypatch, word: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{word}\n"))


def digest(name: str) -> str:
    return hashlib.sha256(CONTENTS[name]).hexdigest()


def test_what_was_listed_arrives_after_a_yes_in_a_private_repository(hub, folder, monkeypatch, capsys):
    answer(monkeypatch, "y")
    push(folder, NAME, sure=False)
    assert hub.repositories == {NAME: Repository(private=True, files=CONTENTS)}
    told = capsys.readouterr().out
    listed, _, after = told.partition("Upload? [y/N]")
    assert [line.split()[-1] for line in listed.splitlines() if " MB " in line] == sorted(CONTENTS)
    assert f"{NAME} is new and will be private." in listed and "/commit/" in after
    assert set(hub.objects.values()) <= set(CONTENTS.values())
    assert b"private:" not in hub.received and b"not listed" not in hub.received
    assert hub.token.encode() not in hub.received and hub.token not in told


@pytest.mark.parametrize("word", ["n", "", "yeah"])
def test_without_a_yes_nothing_is_made_or_sent(hub, folder, monkeypatch, capsys, word):
    answer(monkeypatch, word)
    push(folder, NAME, sure=False)
    assert "Nothing was uploaded." in capsys.readouterr().out
    assert not hub.repositories and not hub.sent and {command for command, _ in hub.asked} == {"GET"}


def test_a_public_repository_is_called_so_before_the_question(hub, folder, monkeypatch, capsys):
    hub.repositories[NAME] = Repository(private=False)
    answer(monkeypatch, "n")
    push(folder, NAME, sure=False)
    told = capsys.readouterr().out
    assert told.index("PUBLIC: everybody will see the model") < told.index("Upload?")
    assert not hub.repositories[NAME].files


def test_an_upload_that_was_broken_off_goes_on(hub, folder):
    arrived, broken = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    hub.broken = {digest(broken)}
    with pytest.raises(UserError, match="was broken off .*what has arrived is not sent twice") as error:
        push(folder, NAME, sure=True)
    assert len(str(error.value).splitlines()) == 1 and hub.token not in str(error.value)
    assert hub.repositories[NAME].files == {}  # no half of a model
    assert hub.sent[digest(arrived)] == len(CONTENTS[arrived])
    hub.broken = set()
    push(folder, NAME, sure=True)
    assert hub.repositories[NAME].files == CONTENTS
    assert hub.sent[digest(arrived)] == len(CONTENTS[arrived])


def test_a_wrong_token_is_told_without_it(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", wrong := "hf_anotheranother")
    with pytest.raises(UserError, match="does not accept the token; log in with `hf auth login`") as error:
        push(folder, NAME, sure=True)
    told = str(error.value) + "".join(capsys.readouterr())
    assert wrong not in told and len(str(error.value).splitlines()) == 1
    assert not hub.repositories and not hub.sent


def test_without_a_token_the_hub_is_not_asked(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token is here"):
        push(folder, NAME, sure=True)
    assert not hub.asked


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "the token may not write there"), (500, "answers with status 500"), (404, "not found")],
)
def test_a_refusal_is_one_line_of_our_own(hub, folder, status, told):
    hub.status = status
    with pytest.raises(UserError, match=told) as error:
        push(folder, NAME, sure=True)
    assert hub.token not in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_name_that_is_none_is_refused(hub, folder):
    with pytest.raises(UserError, match="--push not//a name: "):
        push(folder, "not//a name", sure=True)
    assert not hub.asked


def test_the_hub_is_that_of_hf_endpoint(hub, folder):
    """As a user has it: nothing but the environment leads there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from workflow_scripts.stages.push import push; push(Path('{folder}'), '{NAME}', True)",
        ],
        env=kept
        | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(folder),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert hub.repositories[NAME].files == CONTENTS
    assert hub.token not in found.stdout + found.stderr
