"""Rows and digests are made by one of several processes; the others read what it has made."""

import pytest
from datasets import Dataset

from workflow_scripts.base import files
from workflow_scripts.base.processes import Processes
from workflow_scripts.training.data import shared
from workflow_scripts.training.data.shared import Shared


@pytest.fixture
def source(tmp_path):
    files.write_text(tmp_path / "train.jsonl", "{}\n")
    return tmp_path / "train.jsonl"


@pytest.mark.parametrize(("count", "read"), [(1, 2), (2, 1)])
def test_rows_are_read_once(tmp_path, source, monkeypatch, count, read):
    monkeypatch.setattr(shared, "processes", lambda: Processes(0, count))
    made = []

    def rows() -> Dataset:
        made.append(1)
        return Dataset.from_list([{"id": "a", "prompt_ids": [1, 2]}, {"id": "b", "prompt_ids": [3]}])

    found = [Shared(tmp_path / "shared", "key").rows(source, rows) for _ in range(2)]
    assert len(made) == read and found[0].to_list() == found[1].to_list() == rows().to_list()
    assert (tmp_path / "shared").exists() == (count > 1)


def test_other_rows_are_read_again(tmp_path, source, monkeypatch):
    monkeypatch.setattr(shared, "processes", lambda: Processes(0, 2))

    def ids(key: str, id: str) -> list[str]:
        return Shared(tmp_path / "shared", key).rows(source, lambda: Dataset.from_list([{"id": id}]))["id"][:]

    assert ids("one model", "a") == ids("one model", "b") == ["a"]
    assert ids("another", "c") == ["c"]
    files.write_text(source, "{}\n{}\n")
    assert ids("another", "d") == ["d"]


def test_images_are_hashed_once(tmp_path, source, monkeypatch):
    monkeypatch.setattr(shared, "processes", lambda: Processes(0, 2))
    images = [str(source)]
    known = Shared(tmp_path / "shared", "key").digests(images)
    assert known == {str(source): files.sha256(source)}
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("hashed again"))
    assert Shared(tmp_path / "shared", "key").digests(images) == known
    files.write_text(source, "{}\n{}\n")
    with pytest.raises(pytest.fail.Exception, match="hashed again"):
        Shared(tmp_path / "shared", "key").digests(images)
