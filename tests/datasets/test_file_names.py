"""Names of files that differ in their bytes only: composed and decomposed Unicode, and zips without UTF-8's mark."""

import json
import unicodedata
import zipfile

import pytest
from PIL import Image

from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.reading import validate
from workflow_scripts.datasets.acquire import archives
from workflow_scripts.datasets.readers import custom
from workflow_scripts.stages import download

NAME = "Pätient é/café ö.png"


@pytest.mark.parametrize("stated", ["NFC", "NFD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("home", [".", "images"])
@pytest.mark.parametrize("as_file", [True, False])
def test_composed_and_decomposed_names_are_one(stated, on_disk, home, as_file, tmp_path):
    root = tmp_path / "set"
    image = root / home / unicodedata.normalize(on_disk, NAME)
    image.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(image)
    place = unicodedata.normalize(stated, NAME if home == "." or not as_file else f"images/{NAME}")
    row = {"image": place, "question": "Q?", "answer": "A"}
    (root / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    own = {"reader": "custom", "path": str(root / "a.jsonl" if as_file else root)}
    layout = Layout(tmp_path / "results")
    download.download_source(validate({"datasets": {"own": own}}, "test"), layout, "own")
    (found,) = custom.read(layout.raw("own"))
    assert (layout.raw("own") / found.image).resolve() == image.resolve()


def test_a_name_in_both_forms_is_two_files(tmp_path):
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    rows = [{"image": name, "question": "Q?", "answer": "A"} for name in (*names, "ö.png")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [row.image for row in custom.read(tmp_path)] == [*names, "ö.png"]


class _Unmarked(zipfile.ZipInfo):
    """A member as older systems write it, without the mark of UTF-8."""

    def _encodeFilenameFlags(self):
        return self.filename.encode("cp437"), self.flag_bits


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["图像/胸片1.png", "plain.txt"], "gbk"),
        (["图像/喆镕.png", "图像/胸片.png"], "gb18030"),
        (["图像/胸片1.png"], "utf-8"),
        (["Müller/Ångström é.png"], "cp437"),
        (["Müller.png"], "cp437"),
    ],
)
def test_names_of_a_zip_are_those_it_was_packed_by(names, encoding, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(_Unmarked(name.encode(encoding).decode("cp437")), name)
    archives.unpack(tmp_path / "a.zip", tmp_path / "out")
    for name in names:
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == name


def test_marked_names_stay(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("图像/胸片.png", "x")
    archives.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "图像/胸片.png").is_file()
