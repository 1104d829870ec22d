"""What the workflow needs of this machine or cluster, checked one by one."""

import errno
import fcntl
import os
import shutil
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workflow_scripts.base import credentials, files, gpus, shipped
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.settings import Checkpoint, Config
from workflow_scripts.stages import preflight_disk, preflight_slurm
from workflow_scripts.stages.preflight_check import Check, State
from workflow_scripts.tracking.mlflow_store import tracking_uri

PATIENCE = 10  # seconds for a server's answer
SLOW_SECONDS = 0.05  # for a small file: a local disk takes a millisecond, a network disk a few
FEW_FILES = 100_000


def read_profile(path: Path) -> dict[str, Any]:
    """A profile of Snakemake's, by its folder or its name in profiles/."""
    places = (path, Path("profiles") / path, shipped.snakefile().parent / "profiles" / path)
    folders = [folder for folder in places if (folder / "profile.yaml").is_file()]
    if not folders:
        raise UserError(f"--profile {path}: no such folder with profile.yaml; give one of profiles/, or none")
    profile: dict[str, Any] = files.read_yaml(folders[0] / "profile.yaml")
    return profile


def command(settings: Config, layout: Layout, profile: dict[str, Any] | None) -> int:
    """Print all checks as they are made; returns the exit status."""
    on_slurm = bool(profile) and profile is not None and profile.get("executor") == "slurm"
    failed = 0
    for check in checks(settings, layout, profile if on_slurm else None):
        print(check, flush=True)
        failed += check.state == "fail"
    return min(failed, 1)


def checks(settings: Config, layout: Layout, profile: dict[str, Any] | None) -> Iterator[Check]:
    """All checks; those of SLURM by a `profile` that uses it."""
    yield from _versions(profile is not None)
    yield from _disk(settings, layout, _at_once(profile))
    yield _scratch()
    yield from _tracker(settings, layout, several_machines=profile is not None)
    urls = []
    for name, checkpoint, fetched in _models(settings, layout):
        yield _model(name, checkpoint, fetched)
        if not fetched and checkpoint.repository and not (checkpoint.path or checkpoint.embedded):
            urls.append(_address(checkpoint.repository))
    if profile is not None:
        yield from preflight_slurm.checks(settings, layout, profile, urls)


def _versions(on_slurm: bool) -> Iterator[Check]:
    for name in ("snakemake", *(["snakemake-executor-plugin-slurm"] if on_slurm else [])):
        try:
            yield Check("version", "ok", f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Check("version", "fail", f"{name} is not installed", "pip install -r requirements.lock")


def _at_once(profile: dict[str, Any] | None) -> int | None:
    """How many runs train at a time, at most; None where the profile sets no limit."""
    if profile is None:
        return max(1, len(gpus.visible()))
    jobs = profile.get("jobs")
    return jobs if isinstance(jobs, int) else None


def _checkpoints(settings: Config) -> list[tuple[tuple[str, str], Checkpoint]]:
    """Each model of the runs, by (model version, mode)."""
    names = dict.fromkeys((run.model_version, run.mode) for run in runs.chosen(settings))
    return [(name, settings.checkpoint(*name)) for name in names]


def _disk(settings: Config, layout: Layout, at_once: int | None) -> Iterator[Check]:
    """The file system of the results: what the locks and the renames of base/ need, its speed and its space."""
    root = layout.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preflight-", dir=root) as folder:
            yield from _file_system(Path(folder), root)
    except OSError as error:
        yield Check("file system", "fail", f"{root}: {error.strerror}", "give another folder as `results`")
        return
    yield from preflight_disk.checks(settings, layout, at_once)
    left = os.statvfs(root).f_favail
    if 0 < left < FEW_FILES:
        yield Check("disk space", "warn", f"{root}: room for {left} files", "ask for a larger inode quota")


def _file_system(folder: Path, root: Path) -> Iterator[Check]:
    name = "file system"
    lock = folder / "lock"
    lock.touch(exist_ok=False)
    try:
        lock.touch(exist_ok=False)
        yield Check(name, "fail", f"{root}: two could create one lock", "use another disk for `results`")
    except FileExistsError:
        yield Check(name, "ok", f"{root}: locks hold")
    try:
        with lock.open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        kind = errno.errorcode.get(error.errno or 0, "")
        yield Check(
            name, "warn", f"{root}: no fcntl locks ({kind}), which SQLite uses", "take an MLflow server"
        )
    seconds = [_written(folder / str(number)) for number in range(20)]
    middle = statistics.median(seconds)
    state: State = "ok" if middle < SLOW_SECONDS else "warn"
    yield Check(
        name, state, f"{root}: a small file is written and renamed in {1000 * middle:.1f} ms",
        "it serves, but use a faster disk for `results` where there is one",
    )  # fmt: skip


def _written(path: Path) -> float:
    """Seconds to write, sync and rename a small file."""
    before = time.monotonic()
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)
    path.read_text(encoding="utf-8")
    return time.monotonic() - before


def _scratch() -> Check:
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return Check("scratch", "fail", str(error), "let TMPDIR name a folder that can be written")
    free = shutil.disk_usage(folder).free / preflight_disk.GB
    state: State = "ok" if free >= 1 else "warn"
    return Check("scratch", state, f"{folder}: {free:.0f} GB free", "let TMPDIR name a larger disk")


def _tracker(settings: Config, layout: Layout, several_machines: bool) -> Iterator[Check]:
    if "mlflow" not in settings.tracking:
        return
    uri = credentials.without(tracking_uri(settings, layout))
    if uri.startswith("http"):
        failed = _unreachable(f"{uri.rstrip('/')}/health")
        yield Check(
            "tracker", "warn" if failed else "ok", f"{uri}: {failed or 'answers'}",
            "start the server; trainings go on without it",
        )  # fmt: skip
    elif several_machines:
        yield Check(
            "tracker", "warn", f"{uri}: SQLite on a disk of several machines is not safe",
            "start an MLflow server and give its address as tracking_uri",
        )  # fmt: skip
    else:
        yield Check("tracker", "ok", uri)


def _models(settings: Config, layout: Layout) -> Iterator[tuple[str, Checkpoint, bool]]:
    """(name, where it comes from, whether it has been fetched) of each model of the runs."""
    for (model_version, mode), checkpoint in _checkpoints(settings):
        fetched = (layout.model(model_version, mode) / MANIFEST).is_file()
        yield f"{model_version} {mode}", checkpoint, fetched


def _model(name: str, checkpoint: Checkpoint, fetched: bool) -> Check:
    if fetched or checkpoint.embedded:
        return Check("model", "ok", f"{name}: {'fetched' if fetched else 'embedded'}")
    if checkpoint.path:
        there = checkpoint.path.is_dir()
        return Check(
            "model", "ok" if there else "fail", f"{name}: {checkpoint.path}", "no such folder; mend `path`"
        )
    repository = checkpoint.repository or ""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}:
        there = preflight_disk.cached(repository).is_dir()
        return Check(
            "model", "ok" if there else "fail",
            f"{name}: HF_HUB_OFFLINE, {repository} in {preflight_disk.hub_cache()}",
            "it is not there: fetch it where the internet is",
        )  # fmt: skip
    failed = _unreachable(_address(repository))
    return Check(
        "model", "fail" if failed else "ok", f"{name}: {repository}: {failed or 'the hub answers'}",
        "connect, or give a local folder as `path` of the model",
    )  # fmt: skip


def _address(repository: str) -> str:
    return f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/api/models/{repository}"


def _unreachable(url: str) -> str:
    """Why `url` does not answer; "" where it does, if only to ask for a token."""
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403) else f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""
