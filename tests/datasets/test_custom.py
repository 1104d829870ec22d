"""A user's own set: tables with named columns, the messages format, images where they may lie, and splits."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.images import open_image
from workflow_scripts.datasets.readers import custom

ROW = {"image": "a.png", "question": "Is it a CT?", "answer": "Yes"}


def rows_of(root, **columns):
    return list(custom.read(root, columns))


def write_csv(path, *rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def spread(images=20, **values):
    return [{**ROW, "image": f"{number}.png", **values} for number in range(images)]


# Tables


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "\t")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_with_named_columns_are_read(name, delimiter, encoding, tmp_path):
    rows = [
        {"file": "x/a.png", "q": " What, or\twhere; is it? ", "a": "None", "who": "p1", "split": "Test"},
        {"file": "x/b.png", "q": "图里有什么?", "a": "是的", "who": "p2", "split": "val"},
        {"file": "x/c.png", "q": '"Yes"?', "a": "NA", "who": "p2", "split": ""},
    ]
    write_csv(tmp_path / name, *rows, delimiter=delimiter, encoding=encoding)
    first, second, third = rows_of(tmp_path, image="file", question="q", answer="a", image_id="who")
    assert (first.question, first.answer, first.split) == ("What, or where; is it?", "None", "test")
    assert first.stated == {"question": " What, or\twhere; is it? "}
    assert (first.id, first.source, first.image, first.image_id) == ("custom-a-1", "custom", "x/a.png", "p1")
    assert (second.language, second.answer_type, second.yes_no, second.split) == (
        "zh",
        "closed",
        True,
        "validation",
    )
    assert (third.question, third.answer, third.split, third.image_id) == ('"Yes"?', "NA", "train", "p2")


def test_every_field_can_be_stated(tmp_path):
    stated = {
        "id": 7, "split": "test", "image_id": "p1", "language": "zh", "answer_type": "CLOSED ", "question_type": "Organ",
        "modality": "CT", "organ": "Lung", "rationale": "The lungs are black.",
    }  # fmt: skip
    write_jsonl(tmp_path / "a.jsonl", ROW | stated, ROW | dict.fromkeys(stated) | {"image": "b.png"})
    first, second = rows_of(tmp_path)
    values = {key: getattr(first, key) for key in stated}
    assert values == stated | {"id": "custom-7", "answer_type": "closed"}
    assert (second.id, second.language, second.answer_type, second.modality) == (
        "custom-a-2",
        "en",
        "closed",
        "",
    )


def test_all_tables_of_the_folder_and_of_data_are_read(tmp_path):
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "train.csv", ROW)
    write_jsonl(tmp_path / "data" / "test-2.jsonl", ROW | {"image": "b.png"})
    write_csv(tmp_path / ".hidden.csv", {"no": "table"})
    by_id = {row.id: row for row in rows_of(tmp_path)}
    assert {key: (row.split, row.image) for key, row in by_id.items()} == {
        "custom-train-1": ("train", "a.png"), "custom-test-2-1": ("test", "data/b.png")
    }  # fmt: skip


def test_a_parquet_file_may_hold_paths_or_the_images_themselves(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    (tmp_path / "data").mkdir()
    for name, image in (("train-0", {"bytes": data, "path": "red.png"}), ("test-0", "red.png")):
        path = tmp_path / "data" / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist([{"picture": image, "question": "Q?", "answer": 4}]), path)
    custom.unpack(tmp_path, {"image": "picture"})
    held = {row.split: row for row in rows_of(tmp_path, image="picture")}
    assert (tmp_path / held["train"].image).read_bytes() == data
    assert held["test"].image == "data/red.png" and held["test"].answer == "4"
    assert len(list((tmp_path / "images").iterdir())) == 1


@pytest.mark.parametrize(
    ("row", "columns", "complaint"),
    [
        (
            {"image": "a.png", "question": "Q?"},
            {},
            r"row 1: no column 'answer' for the answer \(there are: image,",
        ),
        (
            ROW,
            {"split": "fold"},
            "row 1: no column 'fold' for the split .*name it in the set's columns: {split: ...}",
        ),
        (ROW | {"split": "holdout"}, {}, "row 1: split is 'holdout', none of train,"),
        (ROW | {"language": "de"}, {}, "row 1: language is 'de', neither en nor zh"),
        (ROW | {"answer_type": "maybe"}, {}, "row 1: 'answer_type' is 'maybe', neither OPEN nor CLOSED"),
        (ROW | {"image": "../a.png"}, {}, r"row 1: image is '\.\./a\.png'; give a path below"),
        (ROW | {"image": " "}, {}, "row 1: image is ''; give a path below"),
        (ROW | {"answer": 1.5}, {}, "row 1: 'answer' is 1.5, not text"),
    ],
)
def test_a_bad_row_is_named(row, columns, complaint, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError, match=rf"a\.jsonl: {complaint}"):
        rows_of(tmp_path, **columns)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "a.csv",
            b"image,question,answer\na.png,Is it?,yes,no\n",
            "row 1 has another number of fields than the 3",
        ),
        ("a.csv", b"image,question,answer\na.png,Is it?\n", "row 1 has another number of fields"),
        ("a.csv", "image,question,answer\na.png,圖?,沒有\n".encode("big5"), "neither UTF-8 nor"),
        ("a.csv", b'image,question,answer\na.png,"Is it?,yes\n', "not a readable table"),
        ("a.jsonl", b"[1]\n", "row 1 is not an object"),
        ("a.jsonl", b"{\n", "1: not a JSON object"),
        ("a.parquet", b"PAR1", "not a readable parquet file"),
    ],
)
def test_a_bad_table_is_named(name, content, complaint, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}:? ?{complaint}"):
        rows_of(tmp_path)


def test_a_null_answer_is_an_empty_one_for_conversion_to_drop(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROW | {"answer": None})
    assert [row.answer for row in rows_of(tmp_path)] == [""]


# Without what markup begins with, which is refused.
words = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<[\\"), min_size=1).map(
    lambda text: f"w{text}w"
)


@given(texts=st.lists(st.tuples(words, words), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_as_csv_comes_back_tidied(texts, tmp_path_factory):
    root = tmp_path_factory.mktemp("csv")
    write_csv(
        root / "a.csv", *({**ROW, "question": question, "answer": answer} for question, answer in texts)
    )
    for row, (question, answer) in zip(rows_of(root), texts, strict=True):
        assert (row.question, row.answer) == (" ".join(question.split()), " ".join(answer.split()))
        assert (row.stated.get("question", row.question), row.stated.get("answer", row.answer)) == (
            question,
            answer,
        )


# Images


def test_images_lie_beside_the_table_or_in_images_or_anywhere(tmp_path):
    (tmp_path / "images").mkdir()
    for place in ("a.png", "images/b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / place)
    names = ["a.png", "b.png", "images\\b.png", "c.png", str(tmp_path / "a.png")]
    write_jsonl(tmp_path / "a.jsonl", *(ROW | {"image": name} for name in names))
    found = [row.image for row in rows_of(tmp_path)]
    assert found == ["a.png", "images/b.png", "images/b.png", "c.png", str(tmp_path / "a.png")]
    assert [(tmp_path / image).is_file() for image in found] == [True, True, True, False, True]


def test_a_rendered_dicom_image_stands_for_its_file(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "ct").symlink_to(get_testdata_file("CT_small.dcm", download=False))
    write_jsonl(tmp_path / "a.jsonl", ROW | {"image": "x/ct"}, ROW | {"image": "gone.dcm"})
    before, gone = rows_of(tmp_path)
    custom.render(tmp_path, {})
    custom.render(tmp_path, {})  # has nothing more to do
    after, _ = rows_of(tmp_path)
    assert (before.image, after.image, gone.image) == ("x/ct", "rendered/x/ct.png", "gone.dcm")
    assert before.image_id == after.image_id == "x/ct"
    assert open_image(tmp_path / after.image).tobytes() == open_image(tmp_path / before.image).tobytes()


# Dialogues


def said(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


@pytest.mark.parametrize("user", ["<image>Is it a CT?", "<image>\nIs it  a CT? ", "<image> Is it a CT?"])
@pytest.mark.parametrize(
    "assistant", ["Yes", "<answer>Yes</answer>", " <think></think>\n<answer> Yes</answer>\n"]
)
def test_one_question_after_one_image_is_an_ordinary_row(user, assistant, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", {"messages": said(user, assistant), "images": ["a.png"], "id": "x"})
    (row,) = rows_of(tmp_path)
    assert (row.question, row.answer, row.turns, row.images) == ("Is it a CT?", "Yes", (), ("a.png",))
    assert row.id == "custom-x"


def test_rationales_turns_and_several_images_are_kept(tmp_path):
    messages = said(
        "<image>Where?",
        "<think>Look.</think>Left",
        "And <image> here?",
        "<think>See.</think><answer>Right</answer>",
    )
    write_jsonl(tmp_path / "a.jsonl", {"messages": messages, "images": ["a.png", "b.png"], "modality": "CT"})
    (row,) = rows_of(tmp_path)
    assert (row.question, row.answer, row.rationale, row.modality) == ("And here?", "Right", "See.", "CT")
    assert row.images == ("a.png", "b.png")
    assert [tuple(turn) for turn in row.turns] == [
        ("<image>Where?", "Left", "Look."), ("And <image> here?", "Right", "See.")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"messages": said("<image>Q?")}, "messages: List should have at least 2 items"),
        ({"messages": said("Q?", "A")}, "messages: <image> does not stand once per image"),
        (
            {"messages": said("<image>Q?", "A", "Q?")},
            "messages: roles do not alternate from user to assistant",
        ),
        (
            {"messages": said("<image>Q?", "<answer></answer>", "Q?", "A")},
            "messages: an answer before the last is empty",
        ),
        ({"images": []}, "images: List should have at least 1 item"),
        (
            {"messages": [{"role": "system", "content": "Be kind."}]},
            "messages: List should have at least 2 items",
        ),
    ],
)
def test_a_bad_dialogue_is_named(change, complaint, tmp_path):
    row = {"messages": said("<image>Q?", "A"), "images": ["a.png"]}
    write_jsonl(tmp_path / "a.jsonl", row, row | change)
    with pytest.raises(UserError, match=rf"a\.jsonl: row 2: .*{complaint}"):
        rows_of(tmp_path)


# Splits


def splits_of(root):
    found = {}
    for row in rows_of(root):
        found.setdefault(row.split, []).extend(row.images)
    return found


def test_a_set_without_test_rows_gets_a_tenth_of_its_images(tmp_path):
    rows = spread(40) + spread(40, question="Is it an MRI?")
    write_jsonl(tmp_path / "a.jsonl", *rows)
    found = splits_of(tmp_path)
    assert {split: len(images) for split, images in found.items()} == {"train": 72, "test": 8}
    assert not set(found["train"]) & set(found["test"])
    # The order of the rows does not matter.
    write_jsonl(tmp_path / "a.jsonl", *reversed(rows))
    assert set(splits_of(tmp_path)["test"]) == set(found["test"])


def test_stated_splits_are_left_alone(tmp_path):
    write_jsonl(
        tmp_path / "a.jsonl", *spread(20, split="train"), ROW | {"split": "test"}, ROW | {"split": "dev"}
    )
    found = splits_of(tmp_path)
    assert {split: len(images) for split, images in found.items()} == {
        "train": 20,
        "test": 1,
        "validation": 1,
    }


def test_no_test_image_is_taken_from_validation(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", *spread(10), *spread(9, split="validation"))
    found = splits_of(tmp_path)
    assert found["test"] == ["9.png"] and len(found["validation"]) == 9 and len(found["train"]) == 9


@pytest.mark.parametrize("column", ["patient", "image_id", "group_id", "patient_id", "subject"])
def test_rows_of_one_patient_go_together(column, tmp_path):
    rows = [ROW | {"image": f"{number}.png", column: f"patient{number % 5}"} for number in range(30)]
    write_jsonl(tmp_path / "a.jsonl", *rows)
    columns = {"patient": column} if column == "subject" else {}
    found = rows_of(tmp_path, **columns)
    test = {
        getattr(row, "image_id" if column == "image_id" else "patient")
        for row in found
        if row.split == "test"
    }
    assert len(test) == 1 and sum(row.split == "test" for row in found) == 6
    assert len({row.group for row in found}) == 5


def test_a_patient_is_no_image(tmp_path):
    write_jsonl(
        tmp_path / "a.jsonl", *(ROW | {"image": f"{n}.png", "patient": f"p{n % 2}"} for n in range(4))
    )
    assert [(row.image_id, row.patient) for row in rows_of(tmp_path)] == [
        ("0", "p0"), ("1", "p1"), ("2", "p0"), ("3", "p1")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("1.2.840.113619.2.55", "1.2.840.113619.2.55"),
        ("1.2.840.113619.2.55.dcm", "1.2.840.113619.2.55"),
        ("x/1.2.840.10008.PNG", "x/1.2.840.10008"),
        ("a.v1.jpeg", "a.v1"),
        ("x.y/a", "x.y/a"),
        ("CT.left", "CT.left"),
    ],
)
def test_ids_with_dots_keep_all_their_parts(name, image_id, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROW | {"image": name})
    assert [row.image_id for row in rows_of(tmp_path)] == [image_id]
    write_jsonl(tmp_path / "a.jsonl", ROW | {"image_id": "1.2.840.113619", "patient": "1.2.3", "id": "1.2"})
    (row,) = rows_of(tmp_path)
    assert (row.image_id, row.patient, row.id) == ("1.2.840.113619", "1.2.3", "custom-1.2")


@given(pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=30))
@settings(max_examples=40, deadline=None)
def test_no_image_is_in_two_splits_however_rows_share_them(pairs, tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    write_jsonl(root / "a.jsonl", *(ROW | {"image": [f"{a}.png", f"{b}.png"]} for a, b in pairs))
    found = splits_of(root)
    assert found["test"] and not set(found["test"]) & set(found.get("train", ()))
    assert sum(map(len, found.values())) == 2 * len(pairs)


def test_of_several_frames_one_is_rendered_by_the_rule(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    write_jsonl(tmp_path / "a.jsonl", ROW | {"image": "a.gif"})
    custom.render(tmp_path, {}, "last")
    (row,) = rows_of(tmp_path)
    assert row.image == "rendered/a.gif.png"
    assert open_image(tmp_path / row.image).getpixel((0, 0)) == (200, 200, 200)


def test_all_bad_image_files_are_named_at_once_with_their_rows(tmp_path, caplog):
    for name in ("b.png", "c.dcm"):
        (tmp_path / name).write_bytes(b"nothing")
    write_jsonl(tmp_path / "a.jsonl", *(ROW | {"image": name} for name in ("b.png", "c.dcm", "b.png")))
    custom.render(tmp_path, {})
    first, second = caplog.messages
    assert first.startswith("custom-a-1: ") and "b.png: not a readable image" in first
    assert second.startswith("custom-a-2: ") and "c.dcm: not a readable image" in second


@pytest.mark.parametrize("home", ["here", "test/elsewhere"])
def test_the_splits_do_not_depend_on_where_a_set_lies(home, tmp_path):
    def splits(folder, images):
        (folder / "set").mkdir(parents=True)
        rows = [{**row, "image": str(images / row["image"])} for row in spread(30)]
        write_jsonl(folder / "set" / "rows.jsonl", *rows)
        return [(row.image_id, row.group, row.split) for row in rows_of(folder / "set")]

    first = splits(tmp_path / "a", tmp_path / "a" / "pictures")
    assert first == splits(tmp_path / home, tmp_path / home / "pictures")
    assert {split for _, _, split in first} == {"train", "test"} and first[0][0] == "0"


def test_folders_below_the_common_one_still_name_splits(tmp_path):
    rows = [
        {**ROW, "image": f"/data/test/mine/{split}/{number}.png"}
        for split in ("train", "val", "test")
        for number in range(2)
    ]
    write_jsonl(tmp_path / "rows.jsonl", *rows)
    assert [row.split for row in rows_of(tmp_path)] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
