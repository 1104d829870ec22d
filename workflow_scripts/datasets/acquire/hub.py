"""Fetching a repository of the Hugging Face hub at one commit, every file checked against the hub's own digest.

The files come to lie in the hub's cache, in its documented layout, where other programs find them too. They are
fetched by `transfer` and not by `snapshot_download`, which begins a file again after an interruption since
huggingface_hub 1.18 (its issue 4196), and checks no digest.
"""

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.acquire import transfer
from workflow_scripts.datasets.acquire.archives import points_outside

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

logger = logging.getLogger(__name__)

WORKERS = 8  # files at once
LISTING_RETRIES = 3  # few: without a network the answer should come soon


@dataclass(frozen=True)
class Repository:
    """A dataset or model repository at one commit."""

    kind: str
    name: str
    commit: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def cache(self) -> Path:
        """The repository's folder in the hub's cache."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type=self.kind)

    def blob(self, file: transfer.RemoteFile) -> Path:
        """Where the cache keeps the content of `file`."""
        return self.cache / "blobs" / file.digest


def fetch(
    repository: str, revision: str, folder: Path, patterns: list[str] | None, kind: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Link the files of `repository` that match `patterns` (None: all) into `folder`.

    `kind` is "dataset" or "model". Returns the origin for the manifest, with the commit that was read, and the
    SHA-256 of each file by name. Whatever goes wrong, but a full disk, is a UserError; what had arrived by then is
    kept. Under HF_HUB_OFFLINE the cache is asked instead of the hub.
    """
    from huggingface_hub import is_offline_mode

    with _explained(f"{kind} {repository}", revision):
        if is_offline_mode():
            at_commit, listed = _cached(repository, revision, patterns, kind)
        else:
            at_commit, listed = _list(repository, revision, kind)
        chosen = _choose(at_commit, listed, patterns)
        _check_space(at_commit, chosen)
        digests = _fetch_all(at_commit, chosen)
    _enter_in_cache(at_commit, revision, chosen)
    _keep_listing(at_commit, listed)
    for file in chosen:
        _link(folder / file.name, at_commit.blob(file).resolve())
    origin = {"repository": repository, "revision": revision, "commit": at_commit.commit, "kind": kind}
    return origin, digests


def _list(name: str, revision: str, kind: str) -> tuple[Repository, list[transfer.RemoteFile]]:
    """The repository at the commit that `revision` means, and its files.

    HfApi.repo_info asks the same, but neither tries again nor ever gives up waiting.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff, validate_repo_id

    validate_repo_id(name)
    response = http_backoff(
        "GET",
        f"{constants.ENDPOINT}/api/{kind}s/{name}/revision/{quote(revision, safe='')}",
        params={"blobs": True},
        headers=build_hf_headers(),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        max_retries=LISTING_RETRIES,
    )
    hf_raise_for_status(response)
    try:
        stated = response.json()
        commit, listed = stated["sha"], [transfer.RemoteFile.of(entry) for entry in stated["siblings"]]
        is_commit = re.fullmatch("[0-9a-f]{40}", commit)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{kind} {name}: {_host()} does not answer as the hub does ({type(error).__name__}: {error}); "
            "set HF_ENDPOINT to another mirror, or unset it"
        ) from None
    pinned = re.fullmatch("[0-9a-f]{40}", revision)
    if not is_commit or (pinned and commit != revision):
        raise UserError(f"{kind} {name}: {_host()} answers with {commit!r} for the revision {revision}")
    return Repository(kind, name, commit), listed


def _cached(
    name: str, revision: str, patterns: list[str] | None, kind: str
) -> tuple[Repository, list[transfer.RemoteFile]]:
    """The repository at the commit that `revision` means, or meant at last, and those of its files that the cache has.

    Where the cache knows what the commit has, whichever program put it there, all that match `patterns` must be here.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    folder = Path(
        snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=patterns, local_files_only=True
        )
    )
    repository = Repository(kind, name, folder.name)
    try:
        get_cached_repo_tree(name, repo_type=kind, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        logger.warning("%s: the cache does not tell whether it is complete; taking what is there", repository)
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = path.resolve()
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
            raise UserError(
                f"{repository}: {path} is no link to a blob of the cache; copy the cache with its links (rsync -a)"
            )
        found.append(
            transfer.RemoteFile(str(path.relative_to(folder)), blob.stat().st_size, digest=blob.name)
        )
    return repository, found


def _choose(
    repository: Repository, listed: list[transfer.RemoteFile], patterns: list[str] | None
) -> list[transfer.RemoteFile]:
    from huggingface_hub.utils import filter_repo_objects

    chosen = list(filter_repo_objects(listed, allow_patterns=patterns, key=lambda file: file.name))
    if not chosen:
        raise UserError(
            f"{repository}: none of its {len(listed)} files matches {', '.join(patterns or ['*'])}; correct files:"
        )
    for file in chosen:
        if points_outside(file.name):
            raise UserError(f"{repository}: the file {file.name!r} points outside the folder; refused")
    return chosen


def _check_space(repository: Repository, chosen: list[transfer.RemoteFile]) -> None:
    """Refuse to begin what cannot end: huggingface_hub only warns."""
    missing = {repository.blob(file): file.size for file in chosen if not repository.blob(file).exists()}
    needed = sum(max(0, size - transfer.arrived(blob)) for blob, size in missing.items())
    place = next(parent for parent in (repository.cache, *repository.cache.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{repository}: {transfer.readable(needed)} are still to come, but {place} has only {transfer.readable(free)} free; "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def _fetch_all(repository: Repository, chosen: list[transfer.RemoteFile]) -> dict[str, str]:
    """Fetch the files, the largest first; the first failure stops them all. Returns their SHA-256 by name."""
    stopped = threading.Event()
    with (
        transfer.progress(str(repository), sum(file.size for file in chosen)) as advance,
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        try:
            largest_first = sorted(chosen, key=lambda file: -file.size)
            futures = {
                file.name: pool.submit(_fetch_file, repository, file, advance, stopped)
                for file in largest_first
            }
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
            return {file.name: futures[file.name].result() for file in chosen}
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_file(
    repository: Repository,
    file: transfer.RemoteFile,
    advance: Callable[[int], None],
    stopped: threading.Event,
) -> str:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    url = hf_hub_url(repository.name, file.name, repo_type=repository.kind, revision=repository.commit)
    blob = repository.blob(file)
    with ExitStack() as stack:
        if not blob.exists():  # a cache that is complete may be read-only
            lock = repository.cache.parent / ".locks" / repository.cache.name / f"{file.digest}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(lock))  # the one that huggingface_hub takes for this file
        return transfer.fetch(url, file, blob, advance, stopped)


def _enter_in_cache(repository: Repository, revision: str, chosen: list[transfer.RemoteFile]) -> None:
    """Give each file its name in the cache's snapshot of this commit, and the revision its commit."""
    for file in chosen:
        name = repository.cache / "snapshots" / repository.commit / file.name
        if not name.exists():
            name.unlink(missing_ok=True)
            with suppress(FileExistsError):  # another download was as fast
                _link(name, Path(os.path.relpath(repository.blob(file), name.parent)))
    reference = repository.cache / "refs" / revision
    known = reference.read_text() if reference.exists() else revision
    if known != repository.commit:
        files.write_text(reference, repository.commit)


def _keep_listing(repository: Repository, listed: list[transfer.RemoteFile]) -> None:
    """Let the cache know what the commit has, as snapshot_download does: offline, that tells whether it is complete.

    huggingface_hub 2.4 has a public function to read this, and none to write it.
    """
    from huggingface_hub import _tree_cache

    cache = str(repository.cache)
    if all(file.git_id for file in listed) and _tree_cache.read_tree_cache(cache, repository.commit) is None:
        entries = {
            file.name: _tree_cache.TreeCacheEntry(
                size=file.size,
                blob_id=file.git_id,
                lfs_sha256=file.digest if len(file.digest) == 64 else None,
                lfs_size=file.size if len(file.digest) == 64 else None,
            )
            for file in listed
        }
        _tree_cache.write_tree_cache(cache, repository.commit, entries)
        written = Path(_tree_cache._tree_cache_path(cache, repository.commit))
        with suppress(OSError):  # it ignores a cache that may not be written
            # Else it is for its owner alone, in a cache of several users too.
            written.chmod(written.parent.stat().st_mode & 0o666)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@contextmanager
def _explained(where: str, revision: str) -> Iterator[None]:
    """Turn the errors of the hub and of the network into UserErrors that say what to do."""
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{where}: gated; accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{where}: has no revision {revision}; correct revision:") from None
    except errors.HFValidationError as error:
        raise UserError(f"{where}: {error}; correct repository:") from None
    except errors.LocalEntryNotFoundError as error:
        missing = str(error).partition(" Outgoing traffic")[0]  # what follows is for programmers
        found = f": {missing}" if isinstance(error, errors.IncompleteSnapshotError) else ""
        raise UserError(
            f"{where}: the hub cannot be reached, for HF_HUB_OFFLINE is set, and its cache ({constants.HF_HUB_CACHE}) "
            f"does not have {revision} whole{found}; unset it, copy a complete cache here with its links (rsync -a), "
            "or set path: to a local copy"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{where}: {_refusal(error)}") from None
    except PermissionError as error:
        raise UserError(f"{where}: {error}; set HF_HOME to a folder that you may write in") from None
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{where}: the hub cannot be reached at {_host()} ({reason}); what has arrived is kept. Connect and "
            "start again, set HF_ENDPOINT to another mirror of the hub, or set path: to a local copy"
        ) from None


def _refusal(error: "HfHubHTTPError") -> str:
    """What a status of the hub means. Its own words are left out: nothing that was sent can come back in them."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        with_token = "with a token that may read it" if get_token() else "with `hf auth login` or HF_TOKEN"
        return f"not found, or private; check the name, or log in {with_token}"
    if status == 404:
        return f"{error.response.url.path} not found at {_host()}; check the name, or use another HF_ENDPOINT"
    if status == 429:
        return f"{_host()} asks to be left alone for a while; start again later: what has arrived is kept"
    return (
        f"{_host()} answers with status {status}; what has arrived is kept. Start again later, set HF_ENDPOINT "
        "to another mirror of the hub, or set path: to a local copy"
    )


def _host() -> str:
    """The host of HF_ENDPOINT, without what a user may have put before it."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
