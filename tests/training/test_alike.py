"""The processes of one training have the same environment."""

import re

import pytest
from test_launch import start_two_nodes

from workflow_scripts.base import environment
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import Processes
from workflow_scripts.training import alike
from workflow_scripts.training.alike import Environment

# Of two nodes, which are this machine, the second has other code and another library.
UNLIKE = """
import os, socket, sys
from accelerate import PartialState
from workflow_scripts.base import cli, environment
from workflow_scripts.training import alike

def main(arguments):
    PartialState(cpu=True)
    second = os.environ["RANK"] == "1"
    socket.gethostname = lambda: "gpu08" if second else "gpu07"
    environment.code = lambda: ("b" * 40 if second else "a" * 40, second)
    environment.libraries = lambda: {"torch": "2.0", "trl": "0.9" if second else "1.0"}
    alike.check()
    return 0

sys.exit(cli.run(main))
"""


def check(monkeypatch, *found: Environment) -> None:
    monkeypatch.setattr(alike, "processes", lambda: Processes(0, len(found)))
    monkeypatch.setattr(alike, "gather_object", lambda mine: list(found))
    alike.check()


def test_another_version_on_one_of_the_nodes_is_named(monkeypatch):
    mine = alike.here()
    assert "torch" in mine.versions and "python" in mine.versions
    check(monkeypatch, mine)
    check(monkeypatch, mine, mine)
    other = Environment("gpu08", mine.versions | {"transformers": "4.0"})
    expected = f"gpu08 has another environment than {mine.host}: transformers 4.0 instead of {mine.versions['transformers']};"
    with pytest.raises(UserError, match=re.escape(expected)):
        check(monkeypatch, mine, mine, other)
    without = Environment("gpu08", {name: mine.versions[name] for name in mine.versions if name != "trl"})
    with pytest.raises(UserError, match="trl missing instead of"):
        check(monkeypatch, mine, without)


def test_other_code_of_the_same_version_is_named_by_its_commit(monkeypatch):
    def at(host: str, commit: str | None, dirty: bool | None) -> Environment:
        monkeypatch.setattr(environment, "code", lambda: (commit, dirty))
        return Environment(host, alike.here().versions)

    mine = at("gpu07", "a" * 40, False)
    check(monkeypatch, mine, at("gpu08", "a" * 40, False))
    check(monkeypatch, mine, at("gpu08", None, None))  # without git nobody knows
    with pytest.raises(UserError, match="gpu08 has .*: commit bbbbbbbbbbbb instead of aaaaaaaaaaaa;"):
        check(monkeypatch, mine, at("gpu08", "b" * 40, False))
    with pytest.raises(UserError, match="than gpu07: code changed since instead of as committed;"):
        check(monkeypatch, mine, at("gpu08", "a" * 40, True))
    check(monkeypatch, mine, at("gpu08", "a" * 40, None))


@pytest.mark.slow
def test_a_node_with_another_environment_ends_the_start_on_both(tmp_path):
    nodes = start_two_nodes(tmp_path, UNLIKE)
    said = [node.communicate(timeout=600)[1] for node in nodes]
    assert all(node.returncode for node in nodes), said
    expected = (
        "error: gpu08 has another environment than gpu07: code changed since instead of as "
        "committed, commit bbbbbbbbbbbb instead of aaaaaaaaaaaa, trl 0.9 instead of 1.0;"
    )
    assert any(expected in text for text in said), said
