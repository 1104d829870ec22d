"""Archives that are hostile or torn: nothing outside the folder, nothing without a limit, one clear error."""

import errno
import io
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.acquire import archives


def write_zip(path: Path, name: str, mode: int = 0o644, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "good")
        member = zipfile.ZipInfo(name)
        member.external_attr, member.compress_type = mode << 16, method
        archive.writestr(member, "/etc/passwd")


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../out.txt", 0o644),
        ("/out.txt", 0o644),
        ("a/../../out.txt", 0o644),
        ("..\\out.txt", 0o644),
        ("c:/out.txt", 0o644),
        ("link", stat.S_IFLNK | 0o777),
    ],
)
def test_a_hostile_archive_writes_nothing(tmp_path, name, mode):
    write_zip(tmp_path / "a.zip", name, mode)
    with pytest.raises(UserError, match="refused"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "target")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_archives_are_unpacked_beside_themselves_and_large_ones_are_not(tmp_path, monkeypatch):
    write_zip(tmp_path / "imgs.zip", "imgs/b.txt")
    archives.unpack(tmp_path / "imgs.zip", tmp_path)
    assert (tmp_path / "imgs" / "b.txt").is_file()
    monkeypatch.setattr(archives, "MAX_BYTES", 5)
    with pytest.raises(UserError, match="would unpack to more"):
        archives.unpack(tmp_path / "imgs.zip", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    with pytest.raises(UserError, match="would unpack to more"):
        archives.unpack(tmp_path / "imgs.zip", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 5))
    with pytest.raises(UserError, match=r"unpacks to 0 MiB, but .* has only 0 MiB free"):
        archives.unpack(tmp_path / "imgs.zip", tmp_path)


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    """100 MB of zeros in 100 kB, which say that they are 10 bytes."""
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
        for _ in range(100):
            member.write(bytes(10**6))
    data = bytearray(bomb.read_bytes())
    size = struct.pack("<L", 100_000_000)
    assert data.count(size) == 2  # before the member and in the directory at the end
    bomb.write_bytes(data.replace(size, struct.pack("<L", 10)))
    tracemalloc.start()
    with pytest.raises(
        UserError, match=r"bomb\.zip: not a whole zip archive \(Bad CRC-32 for file 'zeros'\)"
    ):
        archives.unpack(bomb, tmp_path / "target")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert not any(path.is_file() for path in (tmp_path / "target").rglob("*"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_python_unpacks_without_a_limit_are_refused(tmp_path, method):
    write_zip(tmp_path / "a.zip", "imgs/b.txt", method=method)
    with pytest.raises(UserError, match=r"'imgs/b\.txt' is neither stored nor deflated"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_is_wrong_with_an_archive_is_named(tmp_path):
    torn, locked, doubled = (tmp_path / f"{name}.zip" for name in ("torn", "locked", "doubled"))
    torn.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"torn\.zip: not a whole zip"):
        archives.unpack(torn, tmp_path)
    write_zip(locked, "secret.txt")
    data = bytearray(locked.read_bytes())
    for mark, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + flags] |= 1  # encrypted
    locked.write_bytes(data)
    with pytest.raises(UserError, match=r"locked\.zip: cannot be unpacked \(File .* is encrypted"):
        archives.unpack(locked, tmp_path)
    write_zip(doubled, "good.txt/below.txt")
    with pytest.raises(UserError, match=r"doubled\.zip: cannot be unpacked into .*good\.txt"):
        archives.unpack(doubled, tmp_path)


def test_a_full_disk_is_not_taken_for_a_bad_archive(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_zip(tmp_path / "a.zip", "b.txt")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        archives.unpack(tmp_path / "a.zip", tmp_path)


@pytest.fixture(scope="module")
def whole() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train.json", "imgs/xmlab1/source.jpg", "imgs/xmlab1/图.png"):
            archive.writestr(name, name * 20)
    return buffer.getvalue()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_archive_is_unpacked_inside_or_is_a_user_error(tmp_path, whole, data):
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    home = tmp_path / "home"
    shutil.rmtree(home, ignore_errors=True)
    (home / "target").mkdir(parents=True)
    (home / "a.zip").write_bytes(changed[: data.draw(st.integers(len(whole) - 30, len(whole)))])
    try:
        archives.unpack(home / "a.zip", home / "target")
    except UserError as error:
        assert "a.zip" in str(error)
    assert sorted(os.listdir(home)) == ["a.zip", "target"] and sorted(os.listdir(tmp_path)) == ["home"]


@given(st.text(st.sampled_from("./\\:ac"), min_size=1, max_size=12))
def test_a_name_that_is_let_through_stays_in_its_folder(name):
    if not archives.points_outside(name):
        assert Path("/folder") in [path := Path(os.path.normpath(f"/folder/{name}")), *path.parents]
