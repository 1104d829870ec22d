"""One file of the hub: fetched in as many pieces as the network makes it, and whole or absent in the end."""

import hashlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError

logger = logging.getLogger(__name__)

RETRIES = 8  # in a row without a byte
MAX_WAIT = 30  # seconds between two of them, at most; about two minutes in all
SECONDS_PER_LINE = 10  # of progress, where it goes to a log


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub states it: `digest` is its SHA-256 (64 digits, large files) or its git blob id (40 digits).

    `git_id` is the git blob id of what the repository itself holds, which of a large file is a pointer.
    """

    name: str
    size: int
    digest: str
    git_id: str = ""

    @classmethod
    def of(cls, stated: dict[str, Any]) -> "RemoteFile":
        """From an entry of a repository's `siblings`; a ValueError, KeyError or TypeError if it is not one."""
        name, size, lfs = stated["rfilename"], stated["size"], stated.get("lfs")
        digest = lfs["sha256"] if lfs else stated["blobId"]
        if not isinstance(name, str) or not isinstance(size, int):
            raise TypeError(f"{name!r} of size {size!r}")
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest):  # it becomes the name of a file
            raise ValueError(f"the digest {digest!r} of {name}")
        return cls(name, size, digest, str(stated.get("blobId", "")))


def fetch(
    url: str, file: RemoteFile, blob: Path, advance: Callable[[int], None], stopped: threading.Event
) -> str:
    """Put the whole file at `blob`, unless it is there intact. Returns its SHA-256.

    What arrives goes to `arriving(blob)` and stays there if the download ends early, for the next one to go on
    from. A body that is not what the hub states is removed, with a UserError that names the file.
    `advance` is told the bytes that are there or arrive; `stopped` ends the work early.
    """
    if blob.exists():
        if sha256 := _sha256_if_intact(blob, file):
            advance(file.size)
            return sha256
        logger.warning("%s: damaged in the cache; fetching it again", file.name)
        blob.unlink()
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = arriving(blob)
    _append_rest(url, file, partial, advance, stopped)
    sha256 = _sha256_if_intact(partial, file)
    if not sha256:
        raise _damaged(file, partial)
    os.replace(partial, blob)
    return sha256


def arriving(blob: Path) -> Path:
    """Where the bytes of `blob` are kept until it is whole."""
    return blob.with_name(f"{blob.name}.incomplete")


def arrived(blob: Path) -> int:
    """How many bytes of `blob` an earlier download left behind."""
    partial = arriving(blob)
    return partial.stat().st_size if partial.exists() else 0


def _append_rest(
    url: str, file: RemoteFile, partial: Path, advance: Callable[[int], None], stopped: threading.Event
) -> None:
    """Fetch from where `partial` ends, again and again, as long as each connection brings something."""
    import httpx2

    partial.touch()
    failures = 0
    # Not opened for appending: where a file system ignores locks, two downloads then write the same bytes.
    with open(partial, "r+b") as out:
        advance(out.seek(0, os.SEEK_END))
        while (start := out.tell()) < file.size:
            try:
                _append(url, file, out, advance, stopped)
            # RuntimeError: huggingface_hub closes the client of all threads when one cannot connect.
            except (httpx2.TransportError, RuntimeError) as error:
                failures = 0 if out.tell() > start else failures + 1
                if failures > RETRIES:
                    raise
                logger.debug("%s: %r at byte %d; going on from there", file.name, error, out.tell())
                if stopped.wait(min(MAX_WAIT, 2**failures - 1)):
                    raise CancelledError from None


def _append(
    url: str, file: RemoteFile, out: BinaryIO, advance: Callable[[int], None], stopped: threading.Event
) -> None:
    """Write the body from the position of `out` on; a TransportError if it ends early."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    start = out.tell()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # byte ranges are of the file as it is
    if start:
        headers["Range"] = f"bytes={start}-"
    with http_stream_backoff(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, retry_on_exceptions=()
    ) as response:
        if response.status_code == 416:  # the server's file is shorter than the hub states
            raise _damaged(file, Path(out.name))
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # the whole file, from the beginning
            out.seek(0)
            out.truncate()
            advance(-start)
        for chunk in response.iter_bytes():
            if stopped.is_set():
                raise CancelledError
            out.write(chunk)
            out.flush()  # a small one would wait for more to come, and be lost with a process that is killed
            advance(len(chunk))
            if out.tell() > file.size:
                return
    if out.tell() < file.size:
        raise httpx2.RemoteProtocolError("the body ended early")


def _sha256_if_intact(path: Path, file: RemoteFile) -> str | None:
    """The file's SHA-256 if it is what the hub states, else None."""
    if path.stat().st_size != file.size:
        return None
    sha256 = files.sha256(path)
    found = sha256 if len(file.digest) == len(sha256) else git_blob_id(path)
    return sha256 if found == file.digest else None


def git_blob_id(path: Path) -> str:
    """What git calls a file: the SHA-1 of "blob", the size in bytes, a zero byte and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _damaged(file: RemoteFile, partial: Path) -> UserError:
    """Remove what arrived, and say so."""
    partial.unlink()
    return UserError(
        f"{file.name}: what arrived is not what the hub states (digest {file.digest}); removed. Start again, "
        "and if it stays so, set HF_ENDPOINT to another mirror of the hub"
    )


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what counts arriving bytes: a bar on a terminal, now and then a line in a log."""
    from tqdm import tqdm

    where: dict[str, Any] = (
        {} if sys.stderr.isatty() else {"file": _LogLines(), "mininterval": SECONDS_PER_LINE}
    )
    form = "{desc}: {n_fmt}{unit} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"
    scale: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with tqdm(desc=title, total=total, bar_format=form if where else None, **scale, **where) as bar:

        def advance(count: int) -> None:
            with bar.get_lock():
                bar.update(count)

        yield advance


class _LogLines:
    """A stream that makes each thing written to it a line of the log."""

    def write(self, text: str) -> None:
        if text.strip():
            logger.info(text.strip())

    def flush(self) -> None:
        pass


def readable(size: int) -> str:
    from tqdm import tqdm

    return f"{tqdm.format_sizeof(size, divisor=1024)}B"
