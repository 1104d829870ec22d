"""Kept answers: whole or absent, whatever happens to their file."""

import json

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation import kept_answers

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
    with kept_answers.appending(folder / "0.jsonl") as append:
        for key, text in found.items():
            append(answer(key, text))


def test_what_is_appended_is_read_from_all_files(tmp_path):
    keep(tmp_path, {"a": "yes", "b": "line\n\u2028 two"})
    with kept_answers.appending(tmp_path / "1.jsonl") as append:
        append(answer("c", "没有"))
    found = kept_answers.read(tmp_path)
    assert {key: row["text"] for key, row in found.items()} == {
        "a": "yes",
        "b": "line\n\u2028 two",
        "c": "没有",
    }
    assert found["a"] == answer("a", "yes")
    assert all(json.loads(line)["key"] for line in (tmp_path / "0.jsonl").read_text().splitlines())


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
    assert {key: row["text"] for key, row in kept_answers.read(folder).items()} == expected
    keep(folder, {"new": "x"})  # and the next writer removes it
    assert {key: row["text"] for key, row in kept_answers.read(folder).items()} == expected | {"new": "x"}
    assert len(path.read_bytes().splitlines()) == len(expected) + 1


@given(cut=st.integers(1, 200))
def test_a_torn_end_is_no_answer(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("kept")
    keep(folder, {"a": "one", "b": "two"})
    content = (folder / "0.jsonl").read_bytes()
    whole = content.index(b"\n") + 1
    (folder / "0.jsonl").write_bytes(content[: min(whole + cut, len(content) - 1)])
    assert list(kept_answers.read(folder)) == ["a"]
