"""Other programs' files as a user's own set: their layouts and encodings, images inside rows, and all that is bad at once."""

import base64
import csv
import io
import json

import pytest
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.reading import validate
from workflow_scripts.datasets.readers import custom
from workflow_scripts.stages import download

ROW = {"image": "a.png", "question": "Is it a CT?", "answer": "Yes"}


def rows_of(root, **columns):
    return list(custom.read(root, columns))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def png(shade, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("L", (40, 40), shade).save(buffer, kind)
    return buffer.getvalue()


# Encodings and forms of JSON


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_table_is_read_in_its_encoding(name, encoding, tmp_path):
    row = {"image": "a.png", "question": "图中有肿块吗？", "answer": "没有"}
    text = {
        "a.json": json.dumps([row], ensure_ascii=False, indent=1),
        "a.jsonl": json.dumps(row, ensure_ascii=False),
        "a.csv": "image,question,answer\n" + ",".join(row.values()),
    }[name]
    (tmp_path / name).write_bytes((text + "\n").encode(encoding))
    (found,) = rows_of(tmp_path)
    assert (found.question, found.answer, found.answer_type) == ("图中有肿块吗？", "没有", "closed")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_array_and_rows_by_line_are_told_by_what_they_are(name, tmp_path):
    rows = [ROW, ROW | {"image": "b.png"}]
    for text in (json.dumps(rows), json.dumps(rows, indent=2), "\n\n".join(map(json.dumps, rows))):
        (tmp_path / name).write_text(text)
        assert [row.images for row in rows_of(tmp_path)] == [("a.png",), ("b.png",)]


def test_a_json_file_that_describes_the_set_is_no_table(tmp_path):
    write(tmp_path / "train.jsonl", ROW)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "train.jsonl"}}, indent=2))
    (tmp_path / "one_line.json").write_text(json.dumps({"mine": {"file_name": "train.jsonl"}}))
    (tmp_path / "labels.json").write_text('["CT", "MRI"]')
    assert len(rows_of(tmp_path)) == 1
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"no table here; looked for .*\.json with an array of rows"):
        rows_of(tmp_path)


SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "talk", "images": "scans"},
    "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "patient", "assistant_tag": "doctor"},
}
TALK = {"talk": [{"who": "patient", "says": "<image>Is it a CT?"}, {"who": "doctor", "says": "Yes"}]}
ALPACA = {"columns": {"prompt": "q", "query": "more", "response": "a", "images": "scans"}}


@pytest.mark.parametrize(
    ("entry", "row"),
    [(SHAREGPT, TALK), (ALPACA, {"q": "<image>Is it", "more": "a CT?", "a": "Yes"})],
    ids=["sharegpt", "alpaca"],
)
def test_columns_and_tags_are_those_that_llama_factory_is_told(entry, row, tmp_path):
    write(tmp_path / "train.jsonl", row | {"scans": ["a.png"]})
    info = {"other": {"file_name": "b.json"}, "mine": {"file_name": "train.jsonl", **entry}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (found,) = rows_of(tmp_path)
    assert (found.image, found.question.split(), found.answer) == ("a.png", ["Is", "it", "a", "CT?"], "Yes")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            SHAREGPT | {"columns": {"messages": "chat"}},
            "train.jsonl: row 1: dataset_info.json names a column 'chat'",
        ),
        ({"formatting": "other"}, "train.jsonl: formatting is 'other'; alpaca and sharegpt"),
        ({"columns": ["a"]}, "train.jsonl: columns: "),
        ({"tags": {"role_tag": 1}}, "train.jsonl: tags.role_tag: "),
    ],
)
def test_what_is_wrong_in_a_description_is_said(entry, complaint, tmp_path):
    write(tmp_path / "train.jsonl", TALK | {"scans": ["a.png"]})
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "train.jsonl", **entry}}))
    with pytest.raises(UserError, match=complaint) as caught:
        rows_of(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_space_around_names_of_columns_is_left_out(tmp_path):
    write(tmp_path / "a.jsonl", {f" {key} ": value for key, value in ROW.items()})
    (tmp_path / "b.csv").write_text("image , question,answer\t\nb.png,Q?,A\n")
    assert [row.image for row in rows_of(tmp_path)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.csv", "image,question,answer,answer\na,b,c,d\n", "several columns are called 'answer'"),
        ("a.jsonl", json.dumps(ROW | {"answer ": "No"}), "row 1: several columns are called 'answer'"),
        ("a.csv", "image，question，answer\na.png，Q?，A\n", "no column 'image' .*image，question，answer"),
        ("a.jsonl", '{"image": "a.png", "question": "\\ud83d?", "answer": "A"}', "1: .*half a character"),
        ("a.jsonl", "[" * 100_000, "1: not a JSON object .nested too deeply"),
        (
            "a.csv",
            "image,question,answer\na.png,How many?,2.0\nb.png,How many?,\n",
            "every answer is a whole number",
        ),
    ],
)
def test_what_would_be_misread_is_refused(name, text, complaint, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint) as caught:
        rows_of(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_pandas_missing_value_is_an_empty_answer_and_its_index_is_no_column(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "question": "Q?", "answer": NaN}\n')
    (tmp_path / "b.csv").write_text(",image,question,answer\n0,b.png,Q?,2\n1,b.png,Q?,3.5\n")
    assert [row.answer for row in rows_of(tmp_path)] == ["", "2", "3.5"]


# Layouts


def parts(*texts):
    return [{"type": "image"} if text is None else {"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "Yes"}], "image": "a.png"},
        {
            "conversations": [{"from": "user", "value": "<image>Is it?"}, {"from": "assistant", "value": "Yes"}],
            "images": "a.png",
        },
        {
            "messages": [
                {"role": "user", "content": parts(None, "Is it?")},
                {"role": "assistant", "content": parts("Yes")},
            ],
            "images": ["a.png"],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Is it?"}]},
                {"role": "assistant", "content": "Yes"},
            ],
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "Is it?"}],
                },
                {"role": "assistant", "content": "Yes"},
            ],
        },
        {"instruction": "<image>", "input": "Is it?", "output": "Yes", "images": ["a.png"]},
        {"query": "<image>Is it?", "response": "Yes", "images": [{"bytes": None, "path": "a.png"}], "history": []},
    ],
)  # fmt: skip
def test_dialogues_of_other_programs_are_read(row, tmp_path):
    write(tmp_path / "a.jsonl", row)
    (found,) = rows_of(tmp_path)
    assert (found.question, found.answer, found.images, found.turns) == ("Is it?", "Yes", ("a.png",), ())


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be brief.", "conversations": [{"from": "human", "value": "<image>A?"}, {"from": "gpt", "value": "B"}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "<image>A?"},
                {"role": "assistant", "content": "B"},
            ]
        },
        {"instruction": "<image>A?", "output": "B", "system": "Be brief."},
    ],
)  # fmt: skip
def test_what_the_system_says_stands_before_the_first_question(row, tmp_path):
    write(tmp_path / "a.jsonl", row | {"images": ["a.png"]})
    (found,) = rows_of(tmp_path)
    assert (found.question, [turn.user for turn in found.turns]) == ("A?", ["Be brief.\n<image>A?"])


def test_a_history_is_the_earlier_turns(tmp_path):
    row = {"instruction": "And here?", "output": "C", "history": [["<image>A?", "B"]], "images": ["a.png"]}
    write(tmp_path / "a.jsonl", row)
    (found,) = rows_of(tmp_path)
    assert [turn[:2] for turn in found.turns] == [("<image>A?", "B"), ("And here?", "C")]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "turn 1: role 'function_call' is unknown"),
        ({"conversations": "Is it?"}, "conversations is not a list of turns"),
        ({"messages": ["Is it?"]}, "turn 1 has no role and content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "turn 1 has a part that is neither text nor"),
        ({"instruction": "Q?", "output": "A", "history": ["Q?"]}, "history is not a list"),
        ({"instruction": "Q?", "output": "A", "history": 1.5}, "history is not a list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "b.png"}]}], "images": ["a.png"]},
            "images stand in the content and, others, beside it",
        ),
        ({"prompt": "Q?", "label": "A"}, "no column 'image' .*; read are columns image, question and answer; messages"),
    ],
)  # fmt: skip
def test_a_layout_that_is_not_known_is_refused_with_those_that_are(row, complaint, tmp_path):
    write(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError, match=rf"a\.jsonl: row 1: {complaint}.*\(ShareGPT, LLaVA\)"):
        rows_of(tmp_path)


# Images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("prefix", ["", "data:image/x;base64,"])
def test_images_inside_rows_are_laid_open_at_download(kind, prefix, tmp_path):
    data = png(7, kind)
    write(tmp_path / "a.jsonl", ROW | {"image": prefix + base64.b64encode(data).decode()})
    layout = Layout(tmp_path / "results")
    settings = validate(
        {"datasets": {"own": {"reader": "custom", "path": str(tmp_path / "a.jsonl")}}}, "test"
    )
    download.download_source(settings, layout, "own")
    (row,) = rows_of(layout.raw("own"))
    assert (layout.raw("own") / row.image).read_bytes() == data


def test_vlmevalkits_tables_are_read(tmp_path):
    first, second = (base64.b64encode(png(shade)).decode() for shade in (1, 2))
    with open(tmp_path / "a.tsv", "w", newline="") as file:
        names = ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category"]
        writer = csv.DictWriter(file, names, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerow({"index": 10, "image": "20", "question": "Is it?", "answer": "Yes"})
        choices = {"hint": "A chest X-ray.", "A": "Left", "B": "Right", "answer": "B"}
        writer.writerow({"index": 20, "image": first, "question": "Where?", **choices})
        writer.writerow(
            {"index": 30, "image": f"['{first}', '{second}']", "question": "Same?", "answer": "No"}
        )
    custom.unpack(tmp_path, {})
    shared, chosen, several = rows_of(tmp_path)
    assert shared.image == chosen.image == several.images[0] != several.images[1]
    assert (tmp_path / shared.image).read_bytes() == png(1)
    assert (shared.id, chosen.answer) == ("custom-10", "Right")
    assert chosen.question == "A chest X-ray.\nWhere?\nA. Left\nB. Right"


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ("https://example.org/a.png", "is the address 'https://example.org/a.png'; fetch it yourself"),
        ("s3://bucket/a.png", "is the address"),
        ("D:\\data\\a.png", "on a drive of Windows"),
        ("\\\\server\\share\\a.png", "on a drive of Windows"),
        ("data:image/png;base64,AAAA", "holds 3 bytes that are no image of a known format"),
        ("data:image/png;base64,AAA", "holds base64 that cannot be decoded"),
        ("data:image/svg+xml,<svg/>", "holds a data: URL that is not in base64"),
        ("x" * 300, "give a path"),
        ([], "names no image"),
    ],
)
def test_an_image_that_is_no_file_here_is_refused(image, complaint, tmp_path):
    write(tmp_path / "a.jsonl", ROW | {"image": image})
    with pytest.raises(UserError, match=rf"a\.jsonl: row 1: .*{complaint}") as caught:
        rows_of(tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("stated", "on_disk"), [("im.PNG", "im.png"), ("im.jpg", "im.JPG"), (".\\x\\im.png", "x/im.png")]
)
def test_files_are_found_in_other_spellings_of_their_names(stated, on_disk, tmp_path):
    (tmp_path / on_disk).parent.mkdir(exist_ok=True)
    (tmp_path / on_disk).write_bytes(png(1))
    write(tmp_path / "a.jsonl", ROW | {"image": stated})
    assert [row.image for row in rows_of(tmp_path)] == [on_disk]


def test_a_name_of_several_files_in_other_spellings_is_none_of_them(tmp_path):
    for name in ("im.png", "im.PNG"):
        (tmp_path / name).write_bytes(png(1))
    write(tmp_path / "a.jsonl", *(ROW | {"image": name} for name in ("im.PNG", "im.Png")))
    assert [row.image for row in rows_of(tmp_path)] == ["im.PNG", "im.Png"]


# All that is bad


def test_all_bad_rows_and_tables_of_a_set_are_listed_at_once(tmp_path):
    write(tmp_path / "a.jsonl", ROW, ROW | {"answer": True}, ROW | {"image": ""}, ROW)
    (tmp_path / "b.csv").write_text("image,question,answer\na.png,Q?\nb.png,Q?,A\nc.png,Q?,A,B\n")
    (tmp_path / "c.csv").write_text("picture,question,answer\n" + "a.png,Q?,A\n" * 9)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    (tmp_path / "e.jsonl").write_text('{"image": \n' + json.dumps(ROW) + "\n[1]\n")
    with pytest.raises(UserError) as caught:
        rows_of(tmp_path)
    named = [line.removeprefix(f"{tmp_path}/")[:15] for line in str(caught.value).splitlines()]
    assert named == [
        "a.jsonl: row 2:", "a.jsonl: row 3:", "b.csv: row 1 ha", "b.csv: row 3 ha", "c.csv: row 1: n", "d.parquet: not ",
        "e.jsonl:1: not ", "e.jsonl: row 3 ",
    ]  # fmt: skip


def test_of_many_bad_rows_the_first_are_listed(tmp_path):
    write(tmp_path / "a.jsonl", *(ROW | {"answer": None, "image": ""} for _ in range(50)))
    with pytest.raises(UserError) as caught:
        rows_of(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and lines[-1] == "and 30 more"
