"""What results record of the code and the machine."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import workflow_scripts
from workflow_scripts.base import environment

PACKAGE = Path(workflow_scripts.__file__).parent


@pytest.fixture
def checkout(tmp_path):
    """A repository with the package in it, and what `environment.code` says there."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def code() -> list:
        program = "import json; from workflow_scripts.base import environment; print(json.dumps(environment.code()))"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    shutil.copytree(
        PACKAGE / "base", tmp_path / "workflow_scripts" / "base", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "workflow_scripts")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    return tmp_path, git, code


def test_the_commit_is_that_of_the_checkout_and_changed_code_is_said(checkout):
    folder, git, code = checkout
    assert code() == [None, None]
    git("init", "--quiet")
    assert code() == [None, None], "a repository around it that does not have it"
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "HEAD")
    assert code() == [commit, False]
    (folder / "notes.txt").write_text("mine")
    assert code() == [commit, False], "what no result depends on"
    (folder / "workflow_scripts" / "new.py").write_text("")
    assert code() == [commit, True]


def test_made_says_when_by_what_and_where():
    made = environment.made()
    assert (datetime.now(UTC) - datetime.fromisoformat(made["date"])).total_seconds() < 60
    assert made["package"] == workflow_scripts.__version__ and made["libraries"]["torch"]
    assert made["hardware"]["cores"] > 0 and made["hardware"]["memory_gib"] > 0 and made["hardware"]["cpu"]


def test_names_of_machine_and_person_stay_out(monkeypatch):
    import getpass
    import socket

    said = json.dumps(environment.made())
    assert socket.gethostname() not in said and f'"{getpass.getuser()}"' not in said
