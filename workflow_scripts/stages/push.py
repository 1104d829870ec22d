"""Upload an exported model to the hub: after saying what would go and to whom, and nothing that was not said."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.base import credentials
from workflow_scripts.base.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

AGAIN = "start the same command again: what has arrived is not sent twice"


def push(folder: Path, repository: str, sure: bool) -> None:
    """Upload the files of `folder`, which are a model and its card, to the hub's `repository`, after listing them."""
    listed = sorted(path for path in folder.iterdir() if path.is_file())
    print(f"To {repository} on {_host()}:")
    for path in listed:
        print(f"  {path.stat().st_size / 1e6:12,.1f} MB  {path.name}")
    if not sure and not sys.stdin.isatty():
        raise UserError("--push: nothing was uploaded; add --yes where nobody can be asked")
    with _explained(repository):
        api = _api()
        print(f"{repository} is {_state(api, repository)}.")
        if not sure and input("Upload? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was uploaded.")
            return
        api.create_repo(repository, private=True, exist_ok=True)
        names = [path.name for path in listed]
        commit = api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=names)
    print(f"Uploaded: {commit.commit_url}")


def _api() -> "HfApi":
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(
            "--push: no token is here; log in with `hf auth login` or set HF_TOKEN, with one that may write"
        )
    return HfApi()


def _state(api: "HfApi", repository: str) -> str:
    """Who will see what is uploaded."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = api.model_info(repository).private
    except RepositoryNotFoundError:
        return "new and will be private"
    return "there and private" if private else "there and PUBLIC: everybody will see the model"


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn what huggingface_hub 2.4 raises of an upload into a UserError of one line, without the server's own words."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"--push {repository}: {error}") from None
    except (errors.HfHubHTTPError, httpx2.HTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        raise UserError(f"--push {repository}: {_reason(error)}") from None
    except (
        RuntimeError,
        ValueError,
    ) as error:  # around what stopped one of the files; an answer that is none
        raise UserError(f"--push {repository}: {_reason(error.__cause__ or error)}") from None


def _reason(error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error)
    told = credentials.hidden(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
    return f"the upload to {_host()} was broken off ({told}); {AGAIN}"


def _refusal(error: "HfHubHTTPError") -> str:
    """What a status means. Its own words are left out: nothing that was sent can come back in them."""
    status = error.response.status_code
    if status == 401:
        return f"{_host()} does not accept the token; log in with `hf auth login` or set HF_TOKEN to one that may write"
    if status == 403:
        return "the token may not write there; set HF_TOKEN to one that may, or take another name"
    if status == 404:
        return f"{error.response.url.path} not found at {_host()}; check the name, or HF_ENDPOINT"
    return f"{_host()} answers with status {status}; {AGAIN}"


def _host() -> str:
    from huggingface_hub import constants

    return credentials.without(constants.ENDPOINT)
