"""What SLURM's own commands tell; a cluster that does not answer is no error."""

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# Tells a container, which has no command of SLURM's, of which job it is a part, and when by time.time() that must end.
END_VARIABLE = "MEDVQA_JOB_END"
PATIENCE = 30.0  # seconds for one answer
POLL_SECONDS = 15.0  # between two questions, where one is asked until the answer fits
# While no job ends, Snakemake's plugin (2.8) waits ever longer between two looks, up to 180 s. By squeue, how a job
# ended in between is known if it is remembered until the next look comes.
REMEMBER_SECONDS = 240
TAIL = 2**16  # bytes of a job's output
# By slurmstepd's own measure, or by the kernel's.
MEMORY_RAN_OUT = re.compile(rb"slurmstepd.*: error: (.*exceeded memory limit|Detected \d+ oom.kill)")
# States of a job that has not ended; in the last its processes are being ended.
RUNS = {"PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED"}
ACTIVE = {*RUNS, "COMPLETING"}
# Of one that has ended and did not complete.
FAILED = {
    "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a command said; `failed` says in one line why there is no answer."""

    text: str = ""
    failed: str = ""


def ask(*command: str, patience: float = PATIENCE) -> Told:
    """Run a command of SLURM's."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except FileNotFoundError:
        return Told(failed=f"{command[0]}: not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Told(failed=f"{command[0]}: {error}")
    if done.returncode:
        said = " ".join(done.stderr.split())[:200]
        return Told(failed=f"{command[0]}: {said or f'status {done.returncode}'}")
    return Told(done.stdout)


def state_of(job: str) -> str:
    """The state of a job, such as TIMEOUT, by the controller or, once that has forgotten it, the accounting; else "".

    Where SLURM has killed a step for memory, and the job has failed by that, it is OUT_OF_MEMORY.
    """
    state = _shown(job, "JobState")
    if state in ("", "COMPLETING"):  # which hides what the job has ended by
        recorded = ask("sacct", "-X", "--noheader", "--parsable2", "--format=State", f"--jobs={job}")
        words = recorded.text.split()  # "CANCELLED by 1000"
        if words and not (state and words[0] in RUNS):
            state = words[0]
    return "OUT_OF_MEMORY" if state == "FAILED" and _memory_ran_out(job) else state


def ended_badly(jobs: Iterable[str]) -> dict[str, str]:
    """How those of these jobs have ended that did not complete, by the accounting; none that SLURM starts again."""
    told = ask("sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(jobs)}")
    states = dict(line.split("|", 1) for line in told.text.splitlines() if "|" in line)  # the last of each
    ended = {job: state.split()[0] for job, state in states.items()}  # of "CANCELLED by 1000"
    # What was preempted or lost its node may go back into the queue, as the controller knows first.
    return {
        job: state
        for job, state in ended.items()
        if state in FAILED and _shown(job, "JobState") not in ACTIVE
    }


def goes_on(job: str) -> bool:
    """Whether the controller runs a job, or will again: for minutes after it lost its node, sacct says NODE_FAIL alone."""
    state = _shown(job, "JobState")
    return state in RUNS or (state == "COMPLETING" and state_of(job) == "NODE_FAIL")


def restarts(job: str) -> int:
    """How often the cluster has put a job back into its queue, as far as it tells."""
    return int(_shown(job, "Restarts") or 0)


def _memory_ran_out(job: str) -> bool:
    """Whether the daemon of the job's node has said so in the job's output."""
    try:
        with open(_shown(job, "StdOut"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return MEMORY_RAN_OUT.search(file.read()) is not None
    except OSError:
        return False


def _shown(job: str, key: str) -> str:
    """A word that the controller tells of a job; "" where it does not."""
    found = re.search(rf"\b{key}=(\S+)", ask("scontrol", "--oneliner", "show", "job", job).text)
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
    """`scontrol show config`, and empty where no cluster answers."""
    lines = ask("scontrol", "show", "config").text.splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def has_accounting(settings: dict[str, str]) -> bool:
    """Whether sacct has a database to ask, by `configuration`."""
    return not settings.get("AccountingStorageType", "none").endswith("none")


def seconds(value: str) -> int | None:
    """The first number of a value of `configuration` such as "300 sec"."""
    found = re.match(r"\d+", value)
    return int(found[0]) if found else None


def wait_for_answer(*command: str) -> str:
    """What a command of SLURM's tells, once SLURM answers."""
    while (answer := ask(*command)).failed:
        logger.warning("%s; asked again in %.0f s", answer.failed, POLL_SECONDS)
        time.sleep(POLL_SECONDS)
    return answer.text


def wait_for_earlier_jobs() -> bool:
    """Wait until the jobs of an earlier Snakemake in this folder have ended; returns whether there were any.

    What they make is not made twice.
    """
    said = 0
    while left := _left():
        if len(left) != said:
            logger.warning("waiting for %d jobs of an earlier Snakemake: %s", len(left), " ".join(left))
            said = len(left)
        time.sleep(POLL_SECONDS)
    return said > 0


def _left() -> list[str]:
    """The jobs of Snakemake's plugin, by their comment, that were submitted in this folder and have not ended."""
    told = wait_for_answer("squeue", "--noheader", "--me", "--format=%i|%Z|%k")
    jobs = (line.split("|", 2) for line in told.splitlines() if line.count("|") >= 2)
    return [
        number for number, folder, comment in jobs if folder == os.getcwd() and comment.startswith("rule_")
    ]
