"""Files are whole or absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_json(tmp_path / "a.json", {"old": 1})

    def rows():
        yield {"new": 1}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        files.write_jsonl(tmp_path / "a.json", rows())
    assert files.read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with files.replacing_folder(target) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(RuntimeError), files.replacing_folder(target) as folder:
        (folder / "two").write_text("2")
        raise RuntimeError("killed")
    assert [path.name for path in target.iterdir()] == ["one"]
    with files.replacing_folder(target) as folder:
        (folder / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_errors_name_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        list(files.read_jsonl(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b\.json: not valid JSON"):
        files.read_json(tmp_path / "b.json")


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=5))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(value):
    assert files.fingerprint(value) == files.fingerprint(dict(reversed(value.items())))


def test_an_error_names_the_final_path_and_not_the_temporary_one(tmp_path):
    for write, below in ((files.replacing, ""), (files.replacing_folder, "/a.csv")):
        with pytest.raises(UserError) as error, write(tmp_path / "mine") as temporary:
            raise UserError(f"{temporary}{below}: row 3: no image")
        assert str(error.value) == f"{tmp_path}/mine{below}: row 3: no image"


def test_a_relative_path_leads_out_of_a_folder_behind_a_link(tmp_path):
    (tmp_path / "disk" / "deep" / "results" / "pairs").mkdir(parents=True)
    (tmp_path / "results").symlink_to(tmp_path / "disk" / "deep" / "results")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").touch()
    folder = tmp_path / "results" / "pairs"
    assert (folder / files.relative(tmp_path / "mine" / "a.png", folder)).is_file()
