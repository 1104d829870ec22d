"""Unpacking archives that may be hostile."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from workflow_scripts import files
from workflow_scripts.errors import UserError

MAX_FILES = 200_000
MAX_BYTES = 50 * 2**30


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into `folder`; members that point outside it, links and bombs are refused before anything is written."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check(archive, members)
            for member in members:
                target = folder / PurePosixPath(member.filename)
                with (
                    files.replacing(target) as temporary,
                    opened.open(member) as source,
                    open(temporary, "wb") as out,
                ):
                    shutil.copyfileobj(source, out)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: not a whole zip archive ({error}); fetch it again") from None


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
        raise UserError(
            f"{archive}: would unpack to more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB; refused"
        )
    for member in members:
        name = member.filename.replace("\\", "/")
        if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise UserError(f"{archive}: the member {member.filename!r} points outside the folder; refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{archive}: the member {member.filename!r} is a link; refused")
