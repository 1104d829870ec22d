"""Fetching a repository of the Hugging Face hub at one commit."""

from pathlib import Path

from workflow_scripts.errors import UserError


def fetch(repository: str, revision: str, folder: Path, patterns: list[str] | None, kind: str) -> dict:
    """Download the files of `repository` that match `patterns` into `folder`.

    `kind` is "dataset" or "model". Downloads go through the hub's cache, so an interrupted one resumes and
    a second one fetches nothing. Returns the origin for the manifest, with the commit that was read.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{kind} {repository}"
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision).sha
        cached = snapshot_download(repository, repo_type=kind, revision=commit, allow_patterns=patterns)
    except GatedRepoError:
        raise UserError(
            f"{where}: gated; accept its terms on its page, then log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{where}: not found; check the name, or log in with `hf auth login` if it is private"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{where}: has no revision {revision}") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}: the hub cannot be reached ({reason}); connect, set HF_ENDPOINT, or set path: to a local copy"
        ) from None
    for path in Path(cached).rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(cached)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
    return {"repository": repository, "revision": revision, "commit": commit, "kind": kind}
