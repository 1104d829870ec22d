"""The processes of one training have the same environment."""

import re

import pytest

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import Processes
from workflow_scripts.training import alike
from workflow_scripts.training.alike import Environment


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
