"""What SLURM's own commands tell; a cluster that does not answer is no error."""

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# Tells a container, which has no command of SLURM's, of which job it is a part, and when by time.time() that must end.
END_VARIABLE = "MEDVQA_JOB_END"
PATIENCE = 30.0  # seconds for one answer
POLL_SECONDS = 15.0  # between two questions, where one is asked until the answer fits
# While no job ends, base/slurm_executor.py waits ever longer between two looks, up to 180 s. By squeue, how a job ended
# in between is known if it is remembered until the next look comes.
REMEMBER_SECONDS = 240
TAIL = 2**16  # bytes of a job's output
# By slurmstepd's own measure, or by the kernel's.
MEMORY_RAN_OUT = re.compile(rb"slurmstepd.*: error: (.*exceeded memory limit|Detected \d+ oom.kill)")
# States of a job that runs, or will.
RUNS = {"PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING", "STOPPED"}
# Of one that has ended, for good where the controller says so: the accounting calls so, for minutes, also what lost its
# node or was preempted and goes back into the queue.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
# Why a job waits for somebody to do something, as squeue says it, and states that say so themselves.
HELD = re.compile(
    "held|BadConstraints|NeverSatisfied|Partition(Time|Node)Limit|MaxWallDurationPerJob|Invalid(Account|QOS)",
    re.IGNORECASE,
)
HELD_STATES = {"REQUEUE_HOLD", "SPECIAL_EXIT"}
# All jobs of the user, also those in hidden partitions; `queued` reads the answer.
QUEUE = ("squeue", "--noheader", "--all", "--me", "--format=%i|%j|%T|%r|%Z|%k")
CONFIGURATION = ("scontrol", "show", "config")  # `settings_in` reads the answer
# Through which a user's shell hides some jobs from the commands, or asks another cluster.
FILTERS = re.compile("(SQUEUE|SACCT|SCONTROL|SCANCEL)_|(SLURM|SBATCH)_CLUSTERS$")


@dataclass(frozen=True)
class Told:
    """What a command said; `failed` says in one line why there is no answer."""

    text: str = ""
    failed: str = ""


def ask(*command: str, patience: float = PATIENCE) -> Told:
    """Run a command of SLURM's, without what the user's shell has set for it."""
    environment = {name: value for name, value in os.environ.items() if not FILTERS.match(name)}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False,
            timeout=patience,
        )  # fmt: skip
    except FileNotFoundError:
        return Told(failed=f"{command[0]}: not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Told(failed=f"{command[0]}: {error}")
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:]  # warnings come before the cause
        return Told(failed=f"{command[0]}: {said or f'status {done.returncode}'}")
    return Told(done.stdout)


@dataclass(frozen=True)
class QueuedJob:
    """A job as the controller shows it; `reason` says why it waits, `comment` what Snakemake's plugin calls it, and
    `name` of which run of Snakemake it is."""

    number: str
    name: str
    state: str
    reason: str
    folder: str
    comment: str

    @property
    def held(self) -> bool:
        """Whether it waits until somebody does something."""
        return self.state in HELD_STATES or (self.state == "PENDING" and bool(HELD.search(self.reason)))


def queued(told: str) -> list[QueuedJob]:
    """The jobs in an answer to `QUEUE`."""
    return [QueuedJob(*line.split("|", 5)) for line in told.splitlines() if line.count("|") >= 5]


def recorded(jobs: Iterable[str]) -> dict[str, str] | None:
    """The states of those of these jobs that the accounting knows; None where it does not answer."""
    told = ask(
        "sacct", "-X", "--noheader", "--parsable2", "--format=JobIDRaw,State", f"--jobs={','.join(jobs)}"
    )
    if told.failed:
        return None
    states = (line.split("|", 1) for line in told.text.splitlines() if "|" in line)  # the last of each job
    return {number: state.split()[0] for number, state in states if state}  # of "CANCELLED by 1000"


def state_of(job: str) -> str | None:
    """The state of a job, such as TIMEOUT, by the controller or, once that has forgotten it, the accounting.

    "" where neither knows it; None where the controller does not answer, who alone knows that a job goes on. Where SLURM
    has killed a step for memory, and the job has failed by that, it is OUT_OF_MEMORY.
    """
    state = _shown(job, "JobState")
    if state in ("", "COMPLETING"):  # which hides what the job has ended by
        known = (recorded([job]) or {}).get(job, "")
        state = known if known in ENDED else state
    return "OUT_OF_MEMORY" if state == "FAILED" and _memory_ran_out(job) else state


def is_forgotten(job: str) -> bool:
    """Whether the controller answers that it does not know a job."""
    return _shown(job, "JobState") == ""


def restarts(job: str) -> int:
    """How often the cluster has put a job back into its queue, as far as it tells."""
    return int(_shown(job, "Restarts") or 0)


def output_of(job: str) -> str:
    """The file that a job writes to; "" where the controller does not tell."""
    return _shown(job, "StdOut") or ""


def _memory_ran_out(job: str) -> bool:
    """Whether the daemon of the job's node has said so in the job's output."""
    try:
        with open(output_of(job), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return MEMORY_RAN_OUT.search(file.read()) is not None
    except OSError:
        return False


def _shown(job: str, key: str) -> str | None:
    """A word that the controller tells of a job; "" where it knows none, None where it does not answer."""
    told = ask("scontrol", "--oneliner", "--all", "show", "job", job)
    if told.failed and "Invalid job id" not in told.failed:
        return None
    found = re.search(rf"\b{key}=(\S+)", told.text)
    return found[1] if found else ""


def seconds_left(job: str) -> int | None:
    """How long a running job has until its time limit; None where it has none, or SLURM does not tell.

    No more than the whole limit, where the clocks of the machines differ. In a container it is what `hand_on_end` said.
    """
    if not shutil.which("squeue"):
        known, _, end = os.environ.get(END_VARIABLE, "").partition(" ")
        return int(float(end) - time.time()) if known == job and end else None
    told = ask("squeue", "--noheader", f"--jobs={job}", "--format=%L|%l").text.strip().partition("|")
    left, limit = seconds_of(told[0]), seconds_of(told[2])
    return left if left is None or limit is None else min(left, limit)


def hand_on_end() -> None:
    """Tell the containers that this process starts when its SLURM job ends; a later limit they do not hear of."""
    job = os.environ["SLURM_JOB_ID"]
    if (left := seconds_left(job)) is not None:
        os.environ[END_VARIABLE] = f"{job} {time.time() + left:.0f}"


def seconds_of(limit: str) -> int | None:
    """A time of squeue's or sinfo's, such as 1-12:00:00 or 5:00; None for others, such as UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def configuration() -> dict[str, str]:
    """The settings of the cluster, and empty where none answers."""
    return settings_in(ask(*CONFIGURATION).text)


def settings_in(told: str) -> dict[str, str]:
    """The settings in an answer to `CONFIGURATION`."""
    pairs = (line.partition("=") for line in told.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def has_accounting(settings: dict[str, str]) -> bool:
    """Whether sacct has a database to ask, by the settings of the cluster."""
    return not settings.get("AccountingStorageType", "none").endswith(("none", "(null)"))


def seconds(value: str) -> int | None:
    """The first number of a value of `configuration` such as "300 sec"."""
    found = re.match(r"\d+", value)
    return int(found[0]) if found else None


def wait_for_answer(*command: str, pause: Callable[[float], object] = time.sleep) -> str:
    """What a command of SLURM's tells, once SLURM answers."""
    while (answer := ask(*command)).failed:
        logger.warning("%s; asked again in %.0f s", answer.failed, POLL_SECONDS)
        pause(POLL_SECONDS)
    return answer.text


def wait_for_earlier_jobs() -> bool:
    """Wait until the jobs of an earlier Snakemake in this folder have ended; returns whether there were any.

    What they make is not made twice.
    """
    said: list[tuple[str, bool]] = []
    while left := _left():
        if said != (said := [(job.number, job.held) for job in left]):
            numbers = " ".join(job.number + (f" (held: {job.reason})" if job.held else "") for job in left)
            logger.warning("waiting for %d jobs of an earlier Snakemake: %s", len(left), numbers)
        time.sleep(POLL_SECONDS)
    return bool(said)


def _left() -> list[QueuedJob]:
    """The jobs of Snakemake's plugin, by their comment, that were submitted in this folder and have not ended."""
    return [
        job
        for job in queued(wait_for_answer(*QUEUE))
        if job.folder == os.getcwd() and job.comment.startswith("rule_")
    ]
