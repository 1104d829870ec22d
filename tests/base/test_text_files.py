"""Text files in the encodings that people's programs write; what is no text in them is refused, never mistaken."""

import codecs

import pytest

from workflow_scripts.base import text_files
from workflow_scripts.base.errors import UserError

CHINESE = "图中有肿块吗？没有。\r\n肺部看起来不正常\n"


@pytest.mark.parametrize(
    "data",
    [
        CHINESE.encode(),
        CHINESE.encode("utf-8-sig"),
        CHINESE.encode("utf-16"),
        codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be"),
        CHINESE.encode("utf-32"),
        CHINESE.encode("gb18030"),
    ],
)
def test_text_is_read_without_its_mark(data, tmp_path):
    (tmp_path / "a.txt").write_bytes(data)
    assert text_files.read(tmp_path / "a.txt") == CHINESE.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Müller: naïve Größe, señor, ¿Qué?", "latin-1"),
        ("“Yes”, it’s 5 µm — naïve", "cp1252"),
        ("圖中有腫塊嗎？沒有，肺部", "big5"),
        ("この画像に腫瘤はありますか？はい", "shift_jis"),
        ("この画像に腫瘤はありますか？はい", "euc-jp"),
        ("영상에 종괴가 있습니까? 예 아니오 폐 간 심장", "euc-kr"),
        ("Есть ли на снимке опухоль? Да, легкое, печень", "cp1251"),
        ("Есть ли на снимке опухоль? Да, легкое, печень", "koi8-r"),
        ("Is there a mass?", "utf-16-le"),  # without its mark
    ],
)
def test_text_in_another_encoding_is_refused_and_not_read_as_something_else(text, encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes((text + "\n").encode(encoding) * 3)
    with pytest.raises(UserError, match=r"a\.txt: neither UTF-8 nor.*; save it as UTF-8$"):
        text_files.read(tmp_path / "a.txt")


def test_what_is_wrong_far_behind_is_seen(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 200_000 + b"\xff")
    with pytest.raises(UserError, match="neither UTF-8"):
        text_files.read(tmp_path / "a.txt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt: no such file"):
        text_files.read(tmp_path / "a.txt")
    with pytest.raises(UserError, match="Is a directory"):
        text_files.read(tmp_path)
