"""What is kept is whole or absent, whatever happens to its file."""

import json
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation import keeping

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


def answer(key: str, text: str) -> dict:
    return {
        "key": key,
        "text": text,
        "truncated": False,
        "forced": False,
        "repeated": False,
        "tokens": 3,
        "seconds": 0.1,
    }


def keep(folder, found: dict[str, str]) -> None:
    with keeping.appending(folder / "0.jsonl") as append:
        for key, text in found.items():
            append(answer(key, text))


def test_what_is_appended_is_read_from_all_files(tmp_path):
    keep(tmp_path, {"a": "yes", "b": "line\n\u2028 two"})
    with keeping.appending(tmp_path / "1.jsonl") as append:
        append(answer("c", "没有"))
    found = keeping.read(tmp_path.glob("*.jsonl"))
    assert {key: row["text"] for key, row in found.items()} == {
        "a": "yes",
        "b": "line\n\u2028 two",
        "c": "没有",
    }
    assert found["a"] == answer("a", "yes")
    assert all(json.loads(line)["key"] for line in (tmp_path / "0.jsonl").read_bytes().splitlines())


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), data=st.data())
def test_whatever_byte_is_damaged_only_that_line_is_lost(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("kept")
    found = {str(number): text for number, text in enumerate(texts)}
    keep(folder, found)
    path = folder / "0.jsonl"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    hit = content[:place].count(b"\n")
    broken = content[place] == ord("\n")  # two lines become one
    content[place] = data.draw(st.integers(0, 255).filter(lambda value: value not in (content[place], 10)))
    path.write_bytes(content)
    expected = {
        key: text
        for number, (key, text) in enumerate(found.items())
        if number != hit and not (broken and number == hit + 1)
    }
    assert {key: row["text"] for key, row in keeping.read(folder.glob("*.jsonl")).items()} == expected
    keep(folder, {"new": "x"})  # and the next writer removes it
    assert {key: row["text"] for key, row in keeping.read(folder.glob("*.jsonl")).items()} == expected | {
        "new": "x"
    }
    assert len(path.read_bytes().splitlines()) == len(expected) + 1


@given(cut=st.integers(1, 200))
def test_a_torn_end_is_no_answer(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("kept")
    keep(folder, {"a": "one", "b": "two"})
    content = (folder / "0.jsonl").read_bytes()
    whole = content.index(b"\n") + 1
    (folder / "0.jsonl").write_bytes(content[: min(whole + cut, len(content) - 1)])
    assert list(keeping.read(folder.glob("*.jsonl"))) == ["a"]


def test_damaged_lines_are_warned_of_once_in_whatever_file(tmp_path, caplog):
    keep(tmp_path, {"a": "one", "b": "two"})
    (tmp_path / "0.jsonl").rename(tmp_path / "1.jsonl")  # of a process that no later start may have
    whole = (tmp_path / "1.jsonl").read_bytes()
    (tmp_path / "1.jsonl").write_bytes(whole[:-5])
    for expected in (1, 1):
        assert list(keeping.read(tmp_path.glob("*.jsonl"))) == ["a"]
        assert caplog.text.count("1 damaged line(s)") == expected
    assert (tmp_path / "1.jsonl").read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.fixture
def limit_of_files():
    """Sets how large a file may grow: the system then takes a part of a line and refuses the rest, as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("taken", [0, 1, 40])
def test_a_full_disk_is_one_line_and_leaves_whole_lines(tmp_path, limit_of_files, taken):
    keep(tmp_path, {"a": "one"})
    path = tmp_path / "0.jsonl"
    whole = path.read_bytes()
    with keeping.appending(path) as append:
        limit_of_files(len(whole) + taken)
        with pytest.raises(UserError, match=r"0\.jsonl: cannot be written \(.*\); make room") as caught:
            append(answer("b", "two"))
        assert path.read_bytes() == whole and "\n" not in str(caught.value)
        limit_of_files(1 << 30)
        append(answer("c", "three"))
    assert list(keeping.read([path])) == ["a", "c"]


def test_a_line_that_the_system_takes_in_parts_is_whole(tmp_path, monkeypatch):
    class Slow:
        def __init__(self, *arguments, **options):
            self.number = os.open(tmp_path / "0.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: os.close(self.number)  # noqa: E731
        fileno = lambda self: self.number  # noqa: E731

        def write(self, line):
            return os.write(self.number, line[:7])

    monkeypatch.setattr(keeping, "open", Slow, raising=False)
    keep(tmp_path, {"a": "one", "b": "肺"})
    assert [row["text"] for row in keeping.read([tmp_path / "0.jsonl"]).values()] == ["one", "肺"]
