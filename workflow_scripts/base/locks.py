"""One writer: who writes an output holds a lock beside it, on a network disk too.

A lock is a file that is created exclusively, which such disks do dependably where they ignore flock. It says who holds
it, and its time says that the holder lives. A holder on this machine is dead once its process is gone; any other one
when it has been silent for SILENCE, by the clock of the disk.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from workflow_scripts.base import slurm
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import is_running, launch, processes

logger = logging.getLogger(__name__)

BEAT = 20.0  # seconds between two signs of life
SILENCE = 300.0  # seconds; a network disk may show the time of a file a minute late
POLL = 2.0  # seconds between two looks of who waits

InUse = Literal["end", "wait"]  # what to do where another command writes the same output


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. `machine` and `started` tell a process from others of the same host name or number."""

    token: str = ""
    host: str = "an unknown host"
    process: int = 0
    machine: str = ""
    started: int = 0
    job: str = ""
    launch: str = ""
    since: str = "an unknown time"

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"{self.host}, process {self.process}{job}, since {self.since}"


def _myself() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        process=os.getpid(),
        machine=_machine(),
        started=_started(os.getpid()) or 0,
        job=os.environ.get("SLURM_JOB_ID", ""),
        launch=launch(),
        since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    )


@cache
def _machine() -> str:
    """What is alike for processes that see each other by number: the boot of a machine, and the container on it.

    Empty where the system does not tell, as some sandboxes do not: then signs of life are all there is.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> int | None:
    """When a process of this machine was started, in clock ticks since its boot; -1 if it has ended, None if unknown."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *others = stat.rpartition(")")[2].split()  # after the name, which may hold anything
    return -1 if state in "ZX" else int(others[18])


class Lock:
    """A lock that this process holds until `release`."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"lock {path}", daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(OSError):  # a disk that does not answer for a while
                if _read(self._path) == self._holder:
                    _show_life(self._path)
                elif not _create(self._path, self._holder):
                    # This process was suspended for so long that others took it for dead.
                    logger.error("%s: lost to %s", self._path, _read(self._path))
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    def release(self) -> None:
        self._released.set()
        self._beating.join()
        if _read(self._path) == self._holder:
            self._path.unlink(missing_ok=True)


def _show_life(path: Path) -> None:
    """Let the disk set the time of the lock, by writing its first byte again: `utime` may set that of this machine's clock."""
    try:
        file = os.open(path, os.O_WRONLY)  # never creates it
        try:
            os.pwrite(file, b"{", 0)
        finally:
            os.close(file)
    except OSError:  # such as a full disk that copies what is written
        os.utime(path)


def take(path: Path) -> Lock | Holder:
    """The lock `path`, or who holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    me = _myself()
    while True:
        if _create(path, me):
            return Lock(path, me)
        holder = _read(path)
        if holder and not _is_dead(path, holder):
            return holder
        if holder:
            logger.warning("%s: taken over from %s, which is gone", path, holder)
            _remove(path, holder)


def _create(path: Path, holder: Holder) -> bool:
    """Whether the file was created; it is there already otherwise."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            try:
                json.dump(asdict(holder), file)
                file.flush()
            except BaseException:  # such as a full disk
                path.unlink()
                raise
    except FileExistsError:
        return False
    except PermissionError:
        # SFTP has no word for a file that is there: so sshfs puts it where another machine was first. Is it the folder?
        probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        probe.touch()
        probe.unlink()
        return False
    return True


def _read(path: Path) -> Holder | None:
    """Who holds the lock `path`; None if nobody does."""
    for _ in range(10):
        try:
            return Holder(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # it is being written
            time.sleep(0.1)
    return Holder()


def _is_dead(path: Path, holder: Holder) -> bool:
    if holder.machine and holder.machine == _machine():
        started = _started(holder.process)
        # Some machines hide the processes of other users.
        if started is not None or not is_running(holder.process):
            return started != holder.started
    now = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    now.touch()
    try:
        return now.stat().st_mtime - path.stat().st_mtime > SILENCE
    except FileNotFoundError:  # released by now
        return False
    finally:
        now.unlink()


def _remove(path: Path, dead: Holder) -> None:
    """Remove the lock of a dead holder, and no other one that somebody has put into its place by now."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)  # of several who found it dead, one gets it
    except FileNotFoundError:
        return
    if _read(aside) != dead:
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def lock_of(output: Path) -> Path:
    """Beside the output, for Snakemake removes outputs and what is in them."""
    return output.with_name(f".{output.name}.lock")


@contextmanager
def one_writer(output: Path, in_use: InUse) -> Iterator[None]:
    """Hold the lock of `output`; where another command does, wait for it or end in a UserError that says who it is.

    Of several processes of one training the first holds it.
    """
    path = lock_of(output)
    if processes().rank:
        while in_use == "wait" and (found := _read(path) or Holder()).launch != launch():
            logger.debug("%s: the first process waits for %s", output, found)
            time.sleep(POLL)
        yield
        return
    lock = _waited_for(path, output) if in_use == "wait" else take(path)
    if isinstance(lock, Holder) and _is_left_behind(lock):
        lock = _waited_for(path, output)
    if isinstance(lock, Holder):
        raise UserError(
            f"{output}: another command writes it ({lock}); start again when that has ended, or set "
            "output_in_use: wait"
        )
    try:
        yield
    finally:
        lock.release()


def _is_left_behind(holder: Holder) -> bool:
    """Whether the holder's SLURM job has ended, or is this one before its node was lost: it falls silent soon."""
    mine = os.environ.get("SLURM_JOB_ID")
    if not (mine and holder.job) or (holder.machine and holder.machine == _machine()):
        return False
    return holder.job == mine or slurm.state_of(holder.job) not in slurm.RUNS


def _waited_for(path: Path, output: Path) -> Lock:
    known: Holder | None = None
    while isinstance(found := take(path), Holder):
        if found != known:
            logger.info("%s: waiting for another command that writes it (%s)", output, found)
        known = found
        time.sleep(POLL)
    return found
