"""The user's own preference files: each line checked, and its answers in the format that is trained."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pairs import user_pairs
from workflow_scripts.datasets.pictures.near_duplicates import difference_hash
from workflow_scripts.evaluation.protocols.strict import same_answer
from workflow_scripts.models.catalogue import VERSIONS

USER = {
    "messages": [{"role": "user", "content": "<image>Is it?"}],
    "images": ["a.png"],
    "chosen": "Yes",
    "rejected": "No",
}

OTHER = {**USER, "messages": [{"role": "user", "content": "<image>Is it, really?"}]}


@pytest.fixture
def own_file(tmp_path):
    """Write lines into a file beside an image, and give its path."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    def write(*lines):
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return write


def read(path, rewrite=str, tested=(), **earlier):
    return list(user_pairs.read(path, rewrite, same_answer, tested, **earlier))


def test_a_file_of_the_user_is_read(own_file):
    first, second = read(own_file(USER, {**OTHER, "id": "x", "note": "kept"}), str.upper)
    assert first == {
        **USER,
        "chosen": "YES",
        "rejected": "NO",
        "prompt": USER["messages"][-1]["content"],
        "history": [],
        "id": "mine-1",
        "source": "mine",
        "origin": "user",
    }
    assert second | {"id": "x", "note": "kept"} == second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen": ""}, "chosen: "),
        ({"rejected": 3}, "rejected: "),
        ({"rejected": "Yes"}, "rejected says the same as chosen: 'Yes', 'Yes'"),
        ({"images": []}, "images: "),
        ({"images": ["none.png"]}, "images: .*none.png: no such image"),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user"}]}, "messages.0.content: "),
        (
            {"messages": [{"role": "user", "content": "Is it?"}]},
            "<image> does not stand once per image",
        ),
        (
            {"messages": [*USER["messages"], {"role": "assistant", "content": "Yes"}]},
            "roles do not",
        ),
    ],
)
def test_a_wrong_line_of_the_user_is_named(own_file, change, said):
    with pytest.raises(UserError, match=rf"mine.jsonl:2: {said}"):
        read(own_file(USER, {**USER, **change}))


def test_a_file_that_is_not_json_or_not_there_is_named(own_file, tmp_path):
    with pytest.raises(UserError, match="mine.jsonl:1: not JSON"):
        read(own_file("{"))
    with pytest.raises(UserError, match="none.jsonl: no such file"):
        read(tmp_path / "none.jsonl")


def test_what_cannot_be_written_is_named(own_file):
    def rewrite(text):
        if text == "bad":
            raise ValueError("an answer must not be blank")
        return text

    with pytest.raises(UserError, match=r"mine.jsonl:2: rejected: an answer must not be blank"):
        read(own_file(USER, {**USER, "rejected": "bad"}), rewrite)


def test_what_is_the_same_once_written_is_no_pair(own_file):
    lines = own_file({**USER, "rejected": "yes"})
    with pytest.raises(UserError, match="mine.jsonl:1: rejected says the same as chosen"):
        read(lines, str.casefold)


def test_a_test_image_is_refused(own_file, tmp_path):
    path = own_file(USER)
    with pytest.raises(UserError, match="mine.jsonl:1: images: a.png belongs to the test set"):
        read(path, tested={files.sha256(tmp_path / "a.png")})


def test_markup_in_a_users_turn_is_refused_and_glms_image_is_the_placeholder(own_file):
    def asking(text):
        return own_file({**USER, "messages": [{"role": "user", "content": text}]})

    with pytest.raises(UserError, match=r":1: messages: the question holds markup .*<\|assistant\|>"):
        read(asking("<image>Is it?<|assistant|>Yes"))
    (row,) = read(asking("<|begin_of_image|><|image|><|end_of_image|>Is it?"))
    assert row["messages"][0]["content"] == row["prompt"] == "<image>Is it?"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "the same pair as in row 1; remove one"),
        ({"chosen": "YES."}, "the same pair as in row 1"),
        ({"messages": [{"role": "user", "content": "<image> is  IT?"}]}, "the same pair as in row 1"),
        (
            {"chosen": "No", "rejected": "Yes"},
            "chosen and rejected contradict row 1, which prefers otherwise",
        ),
        ({"chosen": "no.", "rejected": "Perhaps"}, "chosen and rejected contradict row 1"),
        ({"chosen": "Perhaps", "rejected": "yes"}, "chosen and rejected contradict row 1"),
    ],
)
def test_a_pair_that_repeats_or_contradicts_an_earlier_one_is_refused(own_file, change, said):
    with pytest.raises(UserError, match=rf"mine.jsonl:3: {said}"):
        read(own_file(USER, OTHER, {**USER, **change}))


def test_pairs_of_several_files_are_compared_too(own_file, tmp_path):
    """Beside another folder's file an image of the same name is another image."""
    first = own_file(USER)
    second = first.with_name("more.jsonl")
    files.write_jsonl(second, [{**USER, "chosen": "No", "rejected": "Yes"}])
    other = tmp_path / "other" / "more.jsonl"
    shutil.copytree(first.parent, other.parent, ignore=shutil.ignore_patterns("other"))
    files.write_jsonl(other, [USER])
    earlier = user_pairs.Earlier()
    assert len(read(first, earlier=earlier)) == len(read(other, earlier=earlier)) == 1
    with pytest.raises(
        UserError, match=r"more.jsonl:1: chosen and rejected contradict .*/mine.jsonl:1, which"
    ):
        read(second, earlier=earlier)


def test_other_answers_to_one_question_are_no_conflict(own_file):
    assert (
        len(
            read(
                own_file(
                    USER,
                    {**USER, "rejected": "Perhaps"},
                    {**USER, "chosen": "Unclear", "rejected": "Perhaps"},
                )
            )
        )
        == 3
    )


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_thought_on_one_side_alone_is_refused(own_file, side):
    thinking = VERSIONS["4.1v"].answer_format("thinking")
    alone = {**USER, side: f"<think>A round opacity.</think><answer>{USER[side]}</answer>"}
    with pytest.raises(UserError, match=r"mine.jsonl:1: a thought stands in chosen or rejected alone"):
        read(own_file(alone), thinking.rewrite)
    empty = {**USER, side: f"<think></think><answer>{USER[side]}</answer>"}
    both = {
        **OTHER,
        "chosen": "<think>A.</think><answer>Yes</answer>",
        "rejected": "B.</think><answer>No</answer>",
    }
    assert (
        len(
            read(
                own_file(empty, {**both, "rejected": "<think>B.</think><answer>No</answer>"}),
                thinking.rewrite,
            )
        )
        == 2
    )


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [{"from": "human", "value": "<image>Is it?"}],
            "images": ["a.png"],
            "chosen": {"from": "gpt", "value": "Yes"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        {
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}],
            "images": ["a.png"],
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}],
            "rejected": [{"role": "assistant", "content": "No"}],
        },
        {"messages": [*USER["messages"], {"role": "assistant", "content": "Yes"}], "images": "a.png", "rejected_response": "No"},
        {**USER, "images": [".\\a.PNG"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["lines", "array", "gb18030", "utf-16"])
def test_pairs_of_other_programs_are_read(own_file, tmp_path, row, form):
    own_file()
    path, row = tmp_path / "mine.json", {**row, "note": "图中有肿块吗，没有"}
    text = json.dumps([row] if form == "array" else row, ensure_ascii=False)
    path.write_text(text, encoding="utf-8" if form in ("lines", "array") else form)
    (found,) = read(path)
    assert {key: found[key] for key in USER} == USER
    assert not {"conversations", "system", "rejected_response"} & found.keys()


def test_all_bad_lines_are_named_at_once(own_file):
    with pytest.raises(UserError) as caught:
        read(own_file(USER, {**USER, "images": ["none.png"]}, "{", {**USER, "chosen": ""}))
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "3", "4"]


def scan(path, seed=1):
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 160)).save(path)
    return path


def test_an_image_is_examined_by_its_pixels(tmp_path):
    tested = {"test.png": difference_hash(Image.open(scan(tmp_path / "test.png")))}
    for name in ("again.jpg", "again.bmp", "again.webp"):
        with pytest.raises(
            UserError, match=rf"{name}: looks like the test image test.png .* remove the pair"
        ):
            user_pairs.examine(scan(tmp_path / name), set(), tested, "middle")
    user_pairs.examine(scan(tmp_path / "other.png", 2), set(), tested, "middle")
    # An image that the run trains on anyway may look like a test image.
    user_pairs.examine(tmp_path / "again.jpg", {files.sha256(tmp_path / "again.jpg")}, tested, "middle")


def test_a_half_written_jpeg_is_named(tmp_path):
    path = scan(tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut\.jpg: not a readable image"):
        user_pairs.examine(path, set(), {}, "middle")
