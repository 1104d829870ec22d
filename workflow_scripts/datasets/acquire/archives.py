"""Unpacking archives that may be hostile."""

import errno
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from workflow_scripts.base import files, text_files
from workflow_scripts.base.errors import UserError

MAX_FILES = 200_000
MAX_BYTES = 50 * 2**30
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others without a limit
_UTF8 = 0x800  # the flag of a member whose name is marked as UTF-8


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into `folder`, which ends up with all of it; whatever is wrong with it is a UserError.

    Members that point outside, links and bombs are refused before anything is written; a member that turns out
    larger than the archive states is read up to the stated size, where its checksum is wrong.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _name(members)
            _check(archive, members, folder)
            for member in members:
                target = folder / PurePosixPath(member.filename)
                with (
                    files.replacing(target) as temporary,
                    opened.open(member) as source,
                    open(temporary, "wb") as out,
                ):
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(f"{archive}: not a whole zip archive ({error}); fetch it again") from None
    except RuntimeError as error:  # encrypted, or a later version of the format
        raise UserError(f"{archive}: cannot be unpacked ({error})") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(f"{archive}: cannot be unpacked into {folder} ({error})") from None


def _name(members: list[zipfile.ZipInfo]) -> None:
    """Give members without zip's mark of UTF-8 the names they were packed by.

    Python reads such names as cp437, but programs write UTF-8 all the same, or the packing system's own encoding,
    which is GBK where the set is Chinese. One archive has one encoding.
    """
    unmarked = [
        member for member in members if not member.flag_bits & _UTF8 and not member.filename.isascii()
    ]
    packed = [member.filename.encode("cp437") for member in unmarked]
    for encoding in ("utf-8", "gb18030"):
        try:
            names = [name.decode(encoding) for name in packed]
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or text_files.is_chinese("".join(names)):
            for member, name in zip(unmarked, names, strict=True):
                member.filename = name
            return


def points_outside(name: str) -> bool:
    """Whether a file name stated by somebody else leads out of the folder that it is put in, on any system."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ":" in parts[0] or ".." in parts


def _check(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    size = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > MAX_BYTES:
        raise UserError(
            f"{archive}: would unpack to more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB; refused"
        )
    for member in members:
        if points_outside(member.filename):
            raise UserError(f"{archive}: the member {member.filename!r} points outside the folder; refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{archive}: the member {member.filename!r} is a link; refused")
        if member.compress_type not in METHODS:
            raise UserError(
                f"{archive}: the member {member.filename!r} is neither stored nor deflated; pack it anew"
            )
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise UserError(
            f"{archive}: unpacks to {size / 2**20:.0f} MiB, but {existing} has only {free / 2**20:.0f} MiB free; "
            "free some space, or set --results to a folder on a larger disk"
        )
