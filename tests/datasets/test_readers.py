import io
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets import readers
from workflow_scripts.datasets.phantoms.layouts import WRITERS
from workflow_scripts.datasets.readers import READERS, sheets
from workflow_scripts.datasets.readers.parquet import rows, unpack_images
from workflow_scripts.datasets.readers.pathvqa import load_plain_pickle

SLAKE_ROW = {
    "qid": 7, "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Q?", "answer": "None",
    "q_lang": "en", "location": "Lung", "modality": "CT", "answer_type": "OPEN", "base_type": "vqa",
    "content_type": "Organ", "triple": ["vhead", "_", "_"],
}  # fmt: skip
RAD_ROW = {
    "qid": 3, "phrase_type": "test_para", "qid_linked_id": "NULL", "image_name": "synpic1.jpg",
    "image_organ": "HEAD", "question": " Q? ", "question_type": "PRSE", "answer": 4, "answer_type": "CLOSED ",
}  # fmt: skip
PATHVQA_ROW = {
    "answer_type": "other", "img_id": "train_0001", "label": {" cells\u2003": 1}, "question_id": 100001000,
    "question_type": "what", "sent": "What is this ?",
}  # fmt: skip


def write_slake(root: Path, *train: object, **files: object) -> Path:
    for name, content in {"train": list(train), "validation": [], "test": [], **files}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_rad(root: Path, *rows: object) -> Path:
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def write_pathvqa(root: Path, *train: object, home: str = "qas") -> Path:
    (root / home).mkdir(parents=True)
    for split, content in (("train", list(train)), ("val", []), ("test", [])):
        (root / home / f"{split}_vqa.pkl").write_bytes(pickle.dumps(content))
    return root


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images: list[bytes | None], answers: list[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "image": [image and {"bytes": image, "path": None} for image in images],
        "question": ["Is it? "] * len(images),
        "answer": answers or ["Yes"] * len(images),
    }
    pq.write_table(pa.table(table), path)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_phantoms_are_read_whole(name, phantom_sets, phantom_examples):
    examples = phantom_examples[name]
    assert len({example.id for example in examples}) == len(examples)
    assert {example.source for example in examples} == {name}
    for example in examples:
        assert (phantom_sets / name / example.image).is_file()
        yes_or_no = example.answer in ("Yes", "No", "是的", "不是")
        assert example.answer_type == ("closed" if yes_or_no else "open")


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_told_what_was_looked_for(name, tmp_path):
    with pytest.raises(UserError, match="looked for"):
        list(READERS[name](tmp_path))


def test_slake_keeps_none_and_ids_tell_the_language(tmp_path):
    (example,) = READERS["slake"](write_slake(tmp_path, SLAKE_ROW))
    assert (example.id, example.image_id, example.answer) == ("slake-en-7", "xmlab1", "None")
    assert example.facts == {"triple": ["vhead", "_", "_"], "base_type": "vqa"}
    assert (example.mask, example.stated, example.yes_no) == ("", {}, False)


def test_slake_knows_mask_and_boxes_where_they_are(tmp_path):
    folder = tmp_path / "imgs" / "xmlab1"
    folder.mkdir(parents=True)
    (folder / "mask.png").write_bytes(png(0))
    write_slake(tmp_path, SLAKE_ROW, {**SLAKE_ROW, "qid": 8, "img_name": "xmlab2/source.jpg"})
    (folder / "detection.json").write_text('[{"Liver": [1.0, 2.0, 3.0, 4.0]}, {"Liver": [5, 6, 7, 8]}]')
    with_boxes, without = READERS["slake"](tmp_path)
    assert (with_boxes.mask, without.mask) == ("imgs/xmlab1/mask.png", "")
    boxes = [{"label": "Liver", "box": [1.0, 2.0, 3.0, 4.0]}, {"label": "Liver", "box": [5, 6, 7, 8]}]
    assert with_boxes.facts["boxes"] == boxes and "boxes" not in without.facts
    (folder / "detection.json").write_text("[]")
    assert next(READERS["slake"](tmp_path)).facts["boxes"] == []
    (folder / "detection.json").write_text('[{"Liver": [1, 2, 3]}]')
    with pytest.raises(UserError, match=r"detection\.json: box 1, 'Liver', is \[1, 2, 3\], not"):
        list(READERS["slake"](tmp_path))


def test_knowledge_is_read_in_both_languages(tmp_path):
    write_slake(tmp_path)
    (tmp_path / "KG").mkdir()
    (tmp_path / "KG" / "en_organ.csv").write_text('a#b#c\nHeart#function#pump, "beat"\n')
    (tmp_path / "KG" / "disease.csv").write_text("a,b,c\n结石,发病部位,肝脏，肾脏\n", encoding="utf-8")
    assert [tuple(fact.values()) for fact in readers.knowledge("slake", tmp_path)] == [
        ("zh", "disease", "结石", "发病部位", "肝脏，肾脏"),
        ("en", "organ", "Heart", "function", 'pump, "beat"'),
    ]
    (tmp_path / "KG" / "organ.csv").write_text("a,b,c\n心脏,功能\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"KG/organ\.csv:2: 2 parts, not three"):
        list(readers.knowledge("slake", tmp_path))
    assert list(readers.knowledge("rad", tmp_path)) == []


def test_questions_nested_by_image_are_told_apart(tmp_path):
    nested = {"image_id": "xmlab102/source.jpg", "questions": [{"question": "Q?", "answer": "A"}]}
    with pytest.raises(
        UserError, match=r"train\.json: row 1: questions nested by image, as in an edited copy"
    ):
        list(READERS["slake"](write_slake(tmp_path, nested)))


def test_slake_in_its_own_folder_gives_images_relative_to_the_root(tmp_path):
    (tmp_path / "Slake1.0").mkdir()
    write_slake(tmp_path / "Slake1.0", SLAKE_ROW)
    (example,) = READERS["slake"](tmp_path)
    assert example.image == "Slake1.0/imgs/xmlab1/source.jpg"


def test_slake_takes_either_name_of_the_validation_file(tmp_path):
    write_slake(tmp_path, validation=[SLAKE_ROW])
    (tmp_path / "validation.json").rename(tmp_path / "validate.json")
    assert [example.split for example in READERS["slake"](tmp_path)] == ["validation"]
    (tmp_path / "validate.json").unlink()
    with pytest.raises(UserError, match=r"validation split is missing; looked for validate\.json and"):
        list(READERS["slake"](tmp_path))


def test_a_triple_written_as_a_string_is_read(tmp_path):
    row = SLAKE_ROW | {"triple": "['vhead', '_', '_']"}
    assert next(READERS["slake"](write_slake(tmp_path, row))).facts["triple"] == ["vhead", "_", "_"]
    with pytest.raises(UserError, match=r"row 1: 'triple' is 'vhead'"):
        list(READERS["slake"](write_slake(tmp_path, SLAKE_ROW | {"triple": "vhead"})))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"answer_type": "MAYBE"}, r"train\.json: row 2: 'answer_type' is 'MAYBE'"),
        ({"answer": None}, r"train\.json: row 2: 'answer' is None, not text"),
        ({"question": ["Q"]}, r"train\.json: row 2: 'question' is \['Q'\]"),
    ],
)
def test_a_bad_slake_row_is_named(change, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        list(READERS["slake"](write_slake(tmp_path, SLAKE_ROW, SLAKE_ROW | change)))


@pytest.mark.parametrize("key", ["qid", "img_name", "question", "answer", "q_lang", "answer_type"])
def test_a_missing_key_is_named_with_its_row(key, tmp_path):
    row = {name: value for name, value in SLAKE_ROW.items() if name != key}
    with pytest.raises(UserError, match=rf"row 1 has no key '{key}'"):
        list(READERS["slake"](write_slake(tmp_path, row)))


@pytest.mark.parametrize("content", [{"rows": []}, ["text"]])
def test_json_of_another_shape_is_refused(content, tmp_path):
    with pytest.raises(UserError, match=r"test\.json: "):
        list(READERS["slake"](write_slake(tmp_path, test=content)))


def test_cut_off_json_is_named(tmp_path):
    write_slake(tmp_path, SLAKE_ROW)
    (tmp_path / "train.json").write_text('[{"qid": 1', encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.json: not valid JSON"):
        list(READERS["slake"](tmp_path))


def test_rad_oddities_are_normalised(tmp_path):
    (example,) = READERS["rad"](write_rad(tmp_path, RAD_ROW))
    assert (example.id, example.split, example.answer_type, example.answer) == (
        "rad-3",
        "test",
        "closed",
        "4",
    )
    assert (example.question, example.question_type, example.organ) == ("Q?", "PRES", "HEAD")
    assert example.image == "VQA_RAD Image Folder/synpic1.jpg" and example.image_id == "synpic1"
    assert example.facts == {"phrase_type": "test_para"} and example.linked_id == ""
    assert example.stated == {"question": " Q? "}


def test_white_space_of_every_kind_becomes_single_spaces_and_is_remembered(tmp_path):
    row = RAD_ROW | {"question": "splee n\tstomac h", "answer": "\u2003a \xa0 b\u3000\n"}
    (example,) = READERS["rad"](write_rad(tmp_path, row))
    assert (example.question, example.answer) == ("splee n stomac h", "a b")
    assert example.stated == {"question": row["question"], "answer": row["answer"]}


def test_a_lost_apostrophe_comes_back_and_no_other_lost_letter_is_guessed(tmp_path):
    row = RAD_ROW | {"question": "it\ufffds Sj\ufffdgren\ufffds?", "answer": "\ufffd s"}
    (example,) = READERS["rad"](write_rad(tmp_path, row))
    assert (example.question, example.answer) == ("it’s Sj\ufffdgren’s?", "\ufffd s")
    assert example.stated == {"question": row["question"]}


def test_an_unknown_question_type_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"row 1: 'question_type' is 'POS, COLOUR'; COLOUR is none of ABN, ATTRIB"
    ):
        list(READERS["rad"](write_rad(tmp_path, RAD_ROW | {"question_type": "POS, COLOUR"})))


def write_xml(root: Path, *rows: dict, head: str = "") -> Path:
    fields = ("".join(f"<{key}>{value}</{key}>" for key, value in row.items()) for row in rows)
    body = "".join(f"<question>{content}</question>" for content in fields)
    path = root / "VQA_RAD Dataset Public.xml"
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>{head}<questions>{body}</questions>', "utf-8")
    return path


def write_xlsx(root: Path, *rows: dict, shown: dict[str, str] | None = None) -> Path:
    """Rows under the column names of the set's sheet; `shown` gives number formats by cell."""
    names = {"qid": "QID_unique", "phrase_type": "QID_para", "image_name": "IMAGEID", "question": "QUESTION",
             "question_type": "Q_TYPE", "answer": "ANSWER", "answer_type": "A_TYPE"}  # fmt: skip
    book = openpyxl.Workbook()
    book.active.append(list(names.values()))
    for row in rows:
        book.active.append([row[key] for key in names])
    for cell, number_format in (shown or {}).items():
        book.active[cell].number_format = number_format
    book.save(root / "VQA_RAD Dataset Public.xlsx")
    return root / "VQA_RAD Dataset Public.xlsx"


def test_rad_as_xml_is_rad_as_json(tmp_path):
    (tmp_path / "json").mkdir()
    from_json = list(READERS["rad"](write_rad(tmp_path / "json", RAD_ROW)))
    write_xml(tmp_path, RAD_ROW)
    assert list(READERS["rad"](tmp_path)) == from_json


def test_formulas_without_a_stored_value_are_named(tmp_path):
    path = write_xlsx(
        tmp_path, RAD_ROW, {**RAD_ROW, "answer": '=IF(1,"Yes","No")'}, {**RAD_ROW, "question": "=A2"}
    )
    with pytest.raises(
        UserError, match=r"Public\.xlsx: 2 cells are formulas without a stored value \(F3, D4\); open"
    ):
        list(READERS["rad"](tmp_path))
    for stored, answer in (('t="str"><f>A2</f><v>Yes</v>', "Yes"), ('t="str"><f>A2</f><v></v>', "")):
        write_xlsx(tmp_path, {**RAD_ROW, "answer": "=A2"})
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        sheet = parts["xl/worksheets/sheet1.xml"].decode()
        parts["xl/worksheets/sheet1.xml"] = re.sub(
            r'(?<=r="F2" )?><f>A2</f><v ?/?>(</v>)?', f" {stored}", sheet
        ).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        assert [row.answer for row in READERS["rad"](tmp_path)] == [answer]


def test_a_sheet_is_read_as_it_shows_its_numbers(tmp_path):
    row = {**RAD_ROW, "qid": 0, "image_name": "https://images.invalid/full/synpic1.jpg"}
    write_xlsx(
        tmp_path, row, {**row, "qid": 1, "answer": 0.05}, {**row, "answer": "None"}, shown={"F3": "0%"}
    )
    first, second, third = READERS["rad"](tmp_path)
    assert (first.id, first.answer, first.image) == ("rad-0", "4", "VQA_RAD Image Folder/synpic1.jpg")
    assert (second.id, second.answer, third.answer) == ("rad-1", "5%", "None")


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE q [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE q [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE q SYSTEM "http://127.0.0.1/q.dtd">',
    ],
)
def test_xml_with_entities_is_refused(head, tmp_path):
    path = write_xml(tmp_path, {**RAD_ROW, "answer": "&a;"}, head=head)
    with pytest.raises(UserError, match=r"Public\.xml: declares a document type"):
        sheets.xml(path)


def test_broken_sheets_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.xml").write_text("<questions><question>")
    with pytest.raises(UserError, match=r"a\.xml: not valid XML"):
        sheets.xml(tmp_path / "a.xml")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"a\.xlsx: not a readable Excel file"):
        sheets.xlsx(tmp_path / "a.xlsx")
    path = write_xlsx(tmp_path, RAD_ROW)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as hostile:
        for name in whole.namelist():
            entity = b"<!DOCTYPE q [<!ENTITY a 'ha'>]>" if "sheet1" in name else b""
            hostile.writestr(name, entity + whole.read(name))
    with pytest.raises(UserError, match=r"b\.xlsx: not a readable Excel file"):
        sheets.xlsx(tmp_path / "b.xlsx")
    monkeypatch.setattr(sheets, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"Public\.xlsx: would unpack to more than"):
        sheets.xlsx(path)


@pytest.mark.parametrize("home", [".", "data_RAD"])
def test_the_mevf_variant_is_read_from_its_own_files(home, tmp_path):
    (tmp_path / home / "images").mkdir(parents=True)
    row = {key: RAD_ROW[key] for key in ("qid", "image_name", "image_organ", "answer", "answer_type", "question_type",
                                         "question")}  # fmt: skip
    for name, phrase in (("trainset", "frame"), ("testset", "para")):
        (tmp_path / home / f"{name}.json").write_text(json.dumps([{**row, "phrase_type": phrase}]))
    train, test = READERS["rad"](tmp_path)
    assert (train.split, test.split, train.id, train.facts["phrase_type"]) == (
        "train",
        "test",
        "rad-mevf-3",
        "frame",
    )
    assert train.image == (Path(home) / "images" / "synpic1.jpg").as_posix()


def test_two_sets_of_one_format_have_names_and_ids_of_their_own(tmp_path):
    (example,) = readers.read("rad", write_rad(tmp_path, RAD_ROW), "rad-old", {})
    assert (example.source, example.id) == ("rad-old", "rad-old-3")


def test_pathvqa_refuses_an_unknown_answer_type(tmp_path):
    with pytest.raises(UserError, match=r"row 1: 'answer_type' is 'maybe', none of yes/no, number, other"):
        list(READERS["pathvqa"](write_pathvqa(tmp_path, PATHVQA_ROW | {"answer_type": "maybe"})))


@pytest.mark.parametrize("spelling", ["POS, PRES", "PRES,POS", " Pres , pos", "PRSE, POS"])
def test_rad_question_types_have_one_spelling(spelling, tmp_path):
    (example,) = READERS["rad"](write_rad(tmp_path, RAD_ROW | {"question_type": spelling}))
    assert example.question_type == "POS, PRES"


@pytest.mark.parametrize("name", ["rad", "pathvqa"])
def test_hub_files_are_read_split_by_split(name, tmp_path):
    for split in ("test", "validation", "train"):
        write_parquet(
            tmp_path / "data" / f"{split}-00000-of-00001-ab12.parquet", [png(1), png(2)], ["no", "a cyst"]
        )
    examples = list(READERS[name](tmp_path))
    splits = [example.split for example in examples]
    assert splits == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert [example.answer_type for example in examples] == ["closed", "open"] * 3
    assert examples[0].id == f"{name}-train-0" and examples[0].image_id != examples[1].image_id


def test_a_missing_hub_split_is_named(tmp_path):
    write_parquet(tmp_path / "data" / "train-0.parquet", [png(1)])
    with pytest.raises(UserError, match=r"no data/test-\*\.parquet"):
        list(READERS["rad"](tmp_path))


def test_shards_are_numbered_on(tmp_path):
    for shard in range(2):
        write_parquet(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [png(shard)])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [png(9)])
    assert [example.id for example in READERS["rad"](tmp_path)] == [
        "rad-train-0",
        "rad-train-1",
        "rad-test-0",
    ]


def test_unpacked_images_are_the_bytes_of_the_rows_once_each(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    images = [png(1), buffer.getvalue(), png(1)]
    file = write_parquet(tmp_path / "data" / "train-0.parquet", images)
    unpack_images(file, tmp_path / "images")
    names = [name for _, name, _, _ in rows(file)]
    assert [(tmp_path / "images" / name).read_bytes() for name in names] == images
    assert names[0] == names[2] and [name.split(".")[1] for name in names[:2]] == ["png", "jpg"]
    assert {path.name for path in (tmp_path / "images").iterdir()} == set(names)


def test_images_already_unpacked_are_left_alone(tmp_path):
    file = write_parquet(tmp_path / "data" / "train-0.parquet", [png(1)])
    unpack_images(file, tmp_path / "images")
    (image,) = (tmp_path / "images").iterdir()
    written = image.stat().st_mtime_ns
    unpack_images(file, tmp_path / "images")
    assert image.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        ([png(1), b"GIF89a"], "row 2: 'image' holds 6 bytes that are no image of a known format"),
        ([png(1), None], "row 2: 'image' holds no bytes"),
    ],
)
def test_a_bad_image_of_a_row_is_named(images, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        unpack_images(write_parquet(tmp_path / "train-0.parquet", images), tmp_path / "images")


def test_bad_parquet_files_are_named(tmp_path):
    cut_off = write_parquet(tmp_path / "train-0.parquet", [png(1)])
    cut_off.write_bytes(cut_off.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train-0\.parquet: not a readable parquet file"):
        list(rows(cut_off))
    with pytest.raises(UserError, match=r"train-1\.parquet: not a readable parquet file"):
        list(rows(tmp_path / "train-1.parquet"))
    with pytest.raises(UserError, match="should begin with one of train, validation, test"):
        list(rows(write_parquet(tmp_path / "dev-0.parquet", [png(1)])))
    pq.write_table(pa.table({"question": ["Q?"], "answer": ["A"]}), tmp_path / "test-0.parquet")
    with pytest.raises(UserError, match="no column 'image'"):
        list(rows(tmp_path / "test-0.parquet"))


@pytest.mark.parametrize("home", ["qas", "pvqa/qas"])
def test_pathvqa_pickles_are_read_and_stripped_of_any_white_space(home, tmp_path):
    (example,) = READERS["pathvqa"](write_pathvqa(tmp_path, PATHVQA_ROW, home=home))
    assert (example.id, example.answer, example.answer_type) == ("pathvqa-100001000", "cells", "open")
    assert example.image == f"{home.removesuffix('qas')}images/train/train_0001.jpg"


@pytest.mark.parametrize("label", [{}, {"a": 1, "b": 1}, "a"])
def test_a_row_without_its_one_answer_is_named(label, tmp_path):
    with pytest.raises(UserError, match=r"train_vqa\.pkl: row 1: 'label' is"):
        list(READERS["pathvqa"](write_pathvqa(tmp_path, PATHVQA_ROW | {"label": label})))


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pathvqa(tmp_path)
    (tmp_path / "qas" / "train_vqa.pkl").write_bytes(pickle.dumps([Trap()], protocol))
    with pytest.raises(UserError, match=r"train_vqa\.pkl: the pickle asks for \S+; do not trust"):
        list(READERS["pathvqa"](tmp_path))
    assert not (tmp_path / "sprung").exists()


plain = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=40, deadline=None)
def test_plain_pickles_come_back_as_they_were(value, protocol, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert load_plain_pickle(path) == value


@given(junk=st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_value_or_a_user_error(junk, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "junk.pkl"
    path.write_bytes(junk)
    try:
        load_plain_pickle(path)
    except UserError as error:
        assert str(path) in str(error)


def test_original_files_go_before_parquet(tmp_path, phantom_sets):
    shutil.copytree(phantom_sets / "pathvqa" / "data", tmp_path / "data")
    assert [example.id for example in READERS["rad"](write_rad(tmp_path, RAD_ROW))] == ["rad-3"]


# What is wrong with a set


def test_all_bad_files_and_rows_of_a_set_are_listed_at_once(tmp_path):
    write_slake(tmp_path, SLAKE_ROW, SLAKE_ROW | {"q_lang": "fr"}, SLAKE_ROW | {"answer": None}, validation=3)
    (tmp_path / "test.json").write_text("[" * 99_999)
    with pytest.raises(UserError) as caught:
        list(READERS["slake"](tmp_path))
    expected = (
        r"train\.json: row 2: 'q_lang' is 'fr', neither en nor zh",
        r"train\.json: row 3: 'answer' is None, not text",
        r"validation\.json: a list of rows is expected, not int",
        r"test\.json: not valid JSON \(nested too deeply\)",
    )
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    assert all(re.search(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines


@pytest.mark.parametrize("text", ["心脏,功能,推动血液流动\n肺,功能,呼吸\n", "心臟,功能,推動血液流動\n"])
def test_a_knowledge_graph_is_read_in_gbk_or_refused(text, tmp_path):
    write_slake(tmp_path, SLAKE_ROW)
    (tmp_path / "KG").mkdir()
    graph = tmp_path / "KG" / "organ.csv"
    graph.write_bytes(f"实体,属性,值\n{text}".encode("gb18030"))
    assert next(row["head"] for row in readers.knowledge("slake", tmp_path)) == text[:2]
    graph.write_bytes("心臟,功能,推動血液流動\n".encode("big5"))
    with pytest.raises(UserError, match=r"organ\.csv: neither UTF-8 nor"):
        list(readers.knowledge("slake", tmp_path))


@pytest.mark.parametrize("encoding", ["utf-7", "gb2312", "nonsense", "utf-16", "ucs-4"])
def test_xml_in_an_odd_encoding_is_read_or_refused(encoding, tmp_path):
    path = write_xml(tmp_path, RAD_ROW)
    path.write_bytes(path.read_bytes().replace(b"UTF-8", encoding.encode()))
    with pytest.raises(UserError, match=r"Public\.xml: not valid XML"):
        sheets.xml(path)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf[]", "[]".encode("utf-16")])
def test_a_set_of_its_own_format_is_read_with_a_mark_of_its_encoding(content, tmp_path):
    write_slake(tmp_path, SLAKE_ROW)
    (tmp_path / "test.json").write_bytes(content)
    assert len(list(READERS["slake"](tmp_path))) == 1


def test_half_a_character_in_a_pickle_is_named(tmp_path):
    write_pathvqa(tmp_path, PATHVQA_ROW, PATHVQA_ROW | {"sent": "What\ud800?"})
    with pytest.raises(
        UserError, match=r"train_vqa\.pkl: row 2: 'sent' is 'What.*ud800\?', with half a character"
    ):
        list(READERS["pathvqa"](tmp_path))
