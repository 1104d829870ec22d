"""Fetching from a hub that misbehaves: what arrives is whole and right, or absent."""

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from hub_server import Fault, HubServer, Repository
from huggingface_hub import _tree_cache, constants, snapshot_download
from huggingface_hub.utils import close_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.acquire import hub, transfer

NAME = "group/scans"
BIG = "imgs.zip"
SMALL = "data/train.json"
TOKEN = "hf_secretsecretsecret"


def bytes_of(name: str, size: int) -> bytes:
    """Bytes that no compression, shift or repetition leaves as they are."""
    return hashlib.shake_256(name.encode()).digest(size)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A running hub that huggingface_hub takes for the real one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        monkeypatch.setattr(transfer, "MAX_WAIT", 0.2)
        monkeypatch.setattr(hub, "LISTING_RETRIES", 0)
        yield server
    close_session()


@pytest.fixture
def repository(server) -> Repository:
    contents = {BIG: bytes_of(BIG, 300_000), SMALL: b'[{"qid": 0}]\n', "empty.txt": b""}
    return server.add("dataset", NAME, contents)


def fetch(folder: Path, revision: str = "main", patterns: list[str] | None = None, kind: str = "dataset"):
    folder.mkdir(parents=True, exist_ok=True)
    return hub.fetch(NAME, revision, folder, patterns, kind)


def present(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def cached(tmp_path: Path) -> list[str]:
    """The names under blobs/ of the cache, of whole files and of parts."""
    return sorted(path.name for path in (tmp_path / "cache").glob("*/blobs/*"))


def test_every_file_arrives_once_and_is_where_others_look_for_it(server, repository, tmp_path):
    origin, digests = fetch(tmp_path / "one")
    assert present(tmp_path / "one") == repository.contents
    assert digests == {name: hashlib.sha256(data).hexdigest() for name, data in repository.contents.items()}
    assert origin == {"repository": NAME, "revision": "main", "commit": repository.commit, "kind": "dataset"}
    sent = dict(server.sent)
    assert sent == {name: len(data) for name, data in repository.contents.items() if data}
    cache = times(tmp_path / "cache")
    fetch(tmp_path / "two")
    fetch(tmp_path / "three", repository.commit)
    assert present(tmp_path / "two") == present(tmp_path / "three") == repository.contents
    assert server.sent == sent and times(tmp_path / "cache") == cache  # which may thus be read-only
    stock = snapshot_download(NAME, repo_type="dataset", revision=repository.commit, local_files_only=True)
    assert present(Path(stock)) == repository.contents


def test_the_server_speaks_as_huggingface_hub_expects(server, repository, tmp_path):
    stock = snapshot_download(NAME, repo_type="dataset", cache_dir=tmp_path / "stock")
    assert present(Path(stock)) == repository.contents
    # What it has fetched is what we would, under the same names.
    shutil.copytree(tmp_path / "stock", tmp_path / "cache", symlinks=True)
    server.sent.clear()
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents and not server.sent


def test_a_model_comes_the_same_way_and_patterns_choose(server, tmp_path):
    contents = {"config.json": b"{}", "model.safetensors": bytes_of("model", 70_000), "README.md": b"no"}
    server.add("model", NAME, contents)
    fetch(tmp_path / "model", patterns=["*.json", "*.safetensors"], kind="model")
    assert set(present(tmp_path / "model")) == {"config.json", "model.safetensors"}
    with pytest.raises(UserError, match=r"model group/scans: none of its 3 files matches \*\.bin"):
        fetch(tmp_path / "none", patterns=["*.bin"], kind="model")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 60_000), max_size=6))
def test_cut_connections_cost_no_byte_twice(server, repository, tmp_path, cuts):
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    server.sent.clear()
    server.misbehave(BIG, [Fault(cut_after=cut) for cut in cuts])
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents
    assert server.sent[BIG] == len(repository.contents[BIG])


def test_a_body_that_stalls_is_asked_for_again_from_there(server, repository, tmp_path):
    server.misbehave(BIG, [Fault(hold_after=100_000)])
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents
    assert server.sent[BIG] == len(repository.contents[BIG])


def test_a_server_that_knows_no_ranges_sends_all_again(server, repository, tmp_path):
    server.misbehave(BIG, [Fault(cut_after=100_000), Fault(ignore_range=True)])
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents
    assert server.sent[BIG] == len(repository.contents[BIG]) + 100_000


def test_a_server_that_asks_to_wait_is_waited_for(server, repository, tmp_path):
    server.misbehave(BIG, [Fault(status=429, headers={"Retry-After": "1"})])
    server.misbehave(SMALL, [Fault(status=503, headers={"Retry-After": "1"})])
    begin = time.monotonic()
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents
    assert time.monotonic() - begin >= 1


def test_a_server_that_restarts_meanwhile_is_found_again(server, tmp_path):
    contents = {f"{number}.zip": bytes_of(str(number), 200_000) for number in range(6)}
    server.add("dataset", NAME, contents)
    for name in contents:
        server.misbehave(name, [Fault(hold_after=100_000)])

    def restart() -> None:
        while sum(server.sent.values()) < 600_000:
            time.sleep(0.01)
        server.stop()
        time.sleep(0.3)
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    fetch(tmp_path / "raw")
    thread.join()
    assert present(tmp_path / "raw") == contents


def test_what_has_arrived_is_kept_when_nothing_more_comes(server, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 2)
    server.misbehave(BIG, [Fault(cut_after=123_456), *[Fault(cut_after=0)] * 3])
    with pytest.raises(
        UserError, match=r"dataset group/scans: the hub cannot be reached .*is kept.*HF_ENDPOINT"
    ):
        fetch(tmp_path / "raw")
    digest = hashlib.sha256(repository.contents[BIG]).hexdigest()
    assert f"{digest}.incomplete" in cached(tmp_path) and digest not in cached(tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents
    assert server.sent[BIG] == len(repository.contents[BIG])


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (BIG, Fault(wrong_bytes=True)),
        (SMALL, Fault(wrong_bytes=True)),
        (BIG, Fault(body=b"an error page")),
        (SMALL, Fault(body=b"an error page that is longer than the file")),
    ],
)
def test_a_wrong_body_is_removed_and_named(server, repository, tmp_path, monkeypatch, name, fault):
    server.misbehave(name, [fault])
    with pytest.raises(UserError, match=f"{name}: what arrived is not what the hub states.*removed"):
        fetch(tmp_path / "raw")
    listed = transfer.RemoteFile.of(repository.listing()["siblings"][list(repository.contents).index(name)])
    assert not [kept for kept in cached(tmp_path) if kept.startswith(listed.digest)]
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents


def test_a_cached_file_that_was_damaged_is_fetched_again(server, repository, tmp_path, caplog):
    fetch(tmp_path / "one")
    blob = (tmp_path / "one" / BIG).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    fetch(tmp_path / "two")
    assert present(tmp_path / "two") == repository.contents
    assert f"{BIG}: damaged in the cache" in caplog.text
    assert server.sent[BIG] == 2 * len(repository.contents[BIG])


@pytest.mark.parametrize(
    ("what", "fault", "message"),
    [
        ("listing", Fault(401), "not found, or private; check the name, or log in with `hf auth login`"),
        ("listing", Fault(401, {"X-Error-Code": "RepoNotFound"}), "not found, or private"),
        (
            "listing",
            Fault(403, {"X-Error-Code": "GatedRepo"}),
            "gated; accept its terms on its page, then log in",
        ),
        (BIG, Fault(403, {"X-Error-Code": "GatedRepo"}), "gated; accept its terms on its page, then log in"),
        ("listing", Fault(404), "/revision/main not found at 127.0.0.1; check the name"),
        (BIG, Fault(404), f"/{BIG} not found at 127.0.0.1; check the name, or use another HF_ENDPOINT"),
        ("listing", Fault(429, {"Retry-After": "0"}), "asks to be left alone for a while"),
        ("listing", Fault(502), "127.0.0.1 answers with status 502; what has arrived is kept"),
        ("listing", Fault(body=b"<html>Please log in</html>"), "does not answer as the hub does"),
        (
            "listing",
            Fault(body=b'{"sha": "main", "siblings": []}'),
            "answers with 'main' for the revision main",
        ),
    ],
)
def test_a_refusal_says_what_to_do(server, repository, tmp_path, what, fault, message):
    server.misbehave(what, [fault])
    with pytest.raises(UserError) as caught:
        fetch(tmp_path / "raw")
    assert str(caught.value).startswith(f"dataset {NAME}: ") and message in str(caught.value)
    assert list((tmp_path / "raw").iterdir()) == []


def test_unknown_names_and_revisions_are_told_apart(server, repository, tmp_path):
    with pytest.raises(UserError, match="has no revision v9; correct revision:"):
        fetch(tmp_path / "raw", "v9")
    with pytest.raises(UserError, match="dataset other/set: not found, or private"):
        hub.fetch("other/set", "main", tmp_path / "raw", None, "dataset")
    with pytest.raises(UserError, match="correct repository:"):
        hub.fetch("../other set", "main", tmp_path / "raw", None, "dataset")


def test_a_mirror_without_its_protocol_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "mirror.invalid")
    with pytest.raises(
        UserError, match=r"cannot be reached at mirror\.invalid .*'https://' protocol.*HF_ENDPOINT"
    ):
        fetch(tmp_path / "raw")


def test_a_pinned_commit_is_not_answered_with_another(server, repository, tmp_path):
    listing = json.dumps(repository.listing() | {"sha": "0" * 40}).encode()
    server.misbehave("listing", [Fault(body=listing)])
    with pytest.raises(UserError, match=f"answers with '{'0' * 40}' for the revision {repository.commit}"):
        fetch(tmp_path / "raw", repository.commit)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"rfilename": "../escaped.txt"}, r"'\.\./escaped\.txt' points outside"),
        ({"rfilename": "/tmp/escaped.txt"}, r"points outside"),
        ({"blobId": "../../escaped", "lfs": None}, "does not answer as the hub does"),
        ({"size": None}, "does not answer as the hub does"),
    ],
)
def test_a_hostile_listing_writes_nothing(server, repository, tmp_path, stated, message):
    repository.stated[SMALL] = stated
    with pytest.raises(UserError, match=message):
        fetch(tmp_path / "raw")
    assert sorted(os.listdir(tmp_path)) == ["raw"] and not os.listdir(tmp_path / "raw")


def test_a_cache_that_may_not_be_written_is_named(server, repository, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied", "/shared/hub")

    monkeypatch.setattr(transfer, "fetch", refuse)
    with pytest.raises(UserError, match="Permission denied: '/shared/hub'; set HF_HOME"):
        fetch(tmp_path / "raw")


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    server, repository, tmp_path, monkeypatch
):
    def free(size: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, size))

    total = sum(map(len, repository.contents.values()))
    free(total - 1)
    with pytest.raises(UserError, match=r"293kB are still to come, but .* has only 293kB free.*HF_HOME"):
        fetch(tmp_path / "raw")
    assert not server.sent
    # What an earlier download left behind need not fit again.
    monkeypatch.setattr(transfer, "RETRIES", 0)
    free(total)
    server.misbehave(BIG, [Fault(cut_after=100_000), Fault(cut_after=0)])
    with pytest.raises(UserError, match="cannot be reached"):
        fetch(tmp_path / "raw")
    free(total - 100_000)
    fetch(tmp_path / "raw")
    assert present(tmp_path / "raw") == repository.contents


def test_two_downloads_at_once_share_the_work(server, repository, tmp_path):
    server.misbehave(BIG, [Fault(hold_after=100_000)])
    threads = [threading.Thread(target=fetch, args=(tmp_path / name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert present(tmp_path / "one") == present(tmp_path / "two") == repository.contents
    assert server.sent[BIG] == len(repository.contents[BIG])


def test_a_failure_stops_the_other_files(server, tmp_path):
    contents = {"large.zip": bytes_of("large", 20_000_000), "small.json": b"{}"}
    server.add("dataset", NAME, contents)
    # The large one is on its way when the small one fails, and would come on if it were waited for.
    server.misbehave("large.zip", [Fault(hold_after=1_000_000)])
    server.misbehave("small.json", [Fault(404)])
    with pytest.raises(UserError, match="not found"):
        fetch(tmp_path / "raw")
    assert server.sent["large.zip"] <= 1_000_000 + 200_000


def test_the_token_goes_to_the_hub_and_to_nobody_else(server, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(tmp_path / "raw")
    assert server.tokens == {"127.0.0.1": {f"Bearer {TOKEN}"}, "localhost": {None}}


@pytest.fixture
def offline(server, monkeypatch):
    """Stop the hub and say that there is none."""

    def go() -> None:
        server.stop()
        close_session()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    yield go
    server.start()


@pytest.mark.parametrize("by", ["us", "snapshot_download", "an older version of it"])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_complete_cache_is_enough_offline(server, repository, tmp_path, offline, caplog, by, pinned):
    """A branch means the commit that it meant at last."""
    revision = repository.commit if pinned else "main"
    if by == "us":
        origin, digests = fetch(tmp_path / "online", revision)
    else:
        snapshot_download(NAME, repo_type="dataset", revision=revision)
        if by.startswith("an older"):
            shutil.rmtree(next((tmp_path / "cache").glob("*/trees")))
            _tree_cache._IN_MEMORY_TREE_CACHE.clear()
    offline()
    cache = times(tmp_path / "cache")
    found, sums = fetch(tmp_path / "raw", revision)
    assert present(tmp_path / "raw") == repository.contents
    assert found == {**found, "commit": repository.commit, "revision": revision}
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in repository.contents.items()}
    assert by != "us" or (found, sums) == (origin, digests)
    assert times(tmp_path / "cache") == cache  # which may be read-only
    assert ("does not tell whether it is complete" in caplog.text) == by.startswith("an older")


def test_an_incomplete_cache_says_offline_what_is_missing(server, repository, tmp_path, offline):
    fetch(tmp_path / "part", repository.commit, patterns=["*.json"])
    offline()
    fetch(tmp_path / "again", repository.commit, patterns=["*.json"])
    assert set(present(tmp_path / "again")) == {SMALL}
    said = f"HF_HUB_OFFLINE is set, .* {repository.commit} whole: .*2 file\\(s\\) are missing .*{BIG}.*; unset it"
    with pytest.raises(UserError, match=said):
        fetch(tmp_path / "raw", repository.commit)
    with pytest.raises(
        UserError, match=f"HF_HUB_OFFLINE is set, and its cache .* {'f' * 40} whole; unset it"
    ):
        fetch(tmp_path / "raw", "f" * 40)
    assert not os.listdir(tmp_path / "raw")


def test_a_damaged_cache_is_no_complete_one_offline(server, repository, tmp_path, offline):
    fetch(tmp_path / "one", repository.commit)
    blob = (tmp_path / "one" / BIG).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    offline()
    with pytest.raises(UserError, match="the hub cannot be reached .*offline mode is enabled"):
        fetch(tmp_path / "raw", repository.commit)
    assert not os.listdir(tmp_path / "raw")


def test_a_cache_copied_without_its_links_is_named(server, repository, tmp_path, offline):
    fetch(tmp_path / "one", repository.commit)
    offline()
    copied = tmp_path / "copied"
    shutil.copytree(tmp_path / "cache", copied)
    shutil.rmtree(tmp_path / "cache")
    shutil.copytree(copied, tmp_path / "cache")
    with pytest.raises(UserError, match=r"is no link to a blob of the cache; .*rsync -a"):
        fetch(tmp_path / "raw", repository.commit)


DIGESTS = st.text("0af/.\n", max_size=3) | st.sampled_from(["0" * 40, "f" * 64, "0" * 40 + "\n", "F" * 40])


@given(
    st.dictionaries(
        st.sampled_from(["rfilename", "size", "blobId", "lfs"]),
        st.none() | st.integers() | DIGESTS | st.dictionaries(st.just("sha256"), DIGESTS),
    )
)
def test_any_entry_is_a_file_or_an_error_that_is_expected(stated):
    try:
        file = transfer.RemoteFile.of(stated)
    except (ValueError, KeyError, TypeError):
        return
    assert set(file.digest) <= set("0123456789abcdef") and len(file.digest) in (40, 64)
    assert isinstance(file.name, str) and isinstance(file.size, int)
