"""Snakemake's executor for SLURM, which loses no job and submits none twice, whatever SLURM answers or leaves unsaid.

That of the plugin (2.8) submits; how jobs are is asked here. The plugin drops all jobs where nobody answers, and waits for
ever for one that squeue no longer shows, that sacct calls "CANCELLED by 1000", or that was preempted for good. One that
lost its node counts as failed there, also where SLURM starts it again, and a second job would work on the same; so it
does where sbatch gives up and the controller has taken the job all the same.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake_executor_plugin_slurm import Executor
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from workflow_scripts.base import attempts, slurm, usage

logger = logging.getLogger(__name__)

ALL = (*slurm.QUEUE, "--states=all")
LONGEST_PAUSE = 180  # seconds between two looks while no job ends; see slurm.REMEMBER_SECONDS
# The accounting may be late: so often neither it nor the controller knows a job before that counts as forgotten.
LOOKS = 5
# What sbatch says where the controller may have taken the job, or will take it later: also that the user or the group
# has as many jobs there as it may.
PASSES = re.compile(
    "timed out|Unable to contact|standby mode|temporarily|Zero Bytes|Connection re|Transport endpoint|SubmitJob"
)
# How a job could come to another cluster, which nobody looks at.
ELSEWHERE = ("cluster", "clusters", "slurm_cluster")
ELSEWHERE_VARIABLES = ("SBATCH_CLUSTERS", "SLURM_CLUSTERS")
ELSEWHERE_FLAG = re.compile(r"(^|\s)(-M|--clusters?\b)")


class Ending(BaseException):
    """Nothing is to be submitted any more; no error that the plugin would report."""


def install() -> None:
    """Let this be what Snakemake takes for `executor: slurm`."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = SteadyExecutor


class SteadyExecutor(Executor):  # type: ignore[misc]  # the plugin states no types
    """Executor whose jobs are all told of; says of those that failed why."""

    def __init__(self, *args: Any) -> None:
        # Before the thread that looks after the jobs begins, in the last line.
        self._submission = threading.Lock()
        self._submitted: set[str] = set()
        self._again = False
        self._ending = threading.Event()
        self._has_accounting = False
        self._unknown: Counter[str] = Counter()
        self._held: set[str] = set()
        super().__init__(*args)

    def __post_init__(self, test_mode: bool = False) -> None:
        super().__post_init__(test_mode)
        if self.array_jobs:
            raise WorkflowError("slurm-array-jobs: take it out; `groups` puts small jobs together")
        if slurm.wait_for_earlier_jobs():
            logger.warning("they have ended; planning anew what is left to do")
            self.workflow.persistence.unlock()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def run_job(self, job: Any) -> None:
        """Submit a job, once SLURM answers and takes it: what cannot be submitted would count as failed."""
        # One by one, so that a job that nothing is known of is this one.
        with self._submission, suppress(Ending):
            self._again = True
            while self._again and not self._ending.is_set():
                self._again = False
                self._submit(job)

    def _submit(self, job: Any) -> None:
        try:
            settings = slurm.settings_in(slurm.wait_for_answer(*slurm.CONFIGURATION, pause=self._pause))
            asked = self.get_status_command() == "sacct" and shutil.which("sacct")
            self._has_accounting = bool(asked) and slurm.has_accounting(settings)
            _check_cluster(job)
            super().run_job(job)
        except Exception as error:  # the plugin's own report asks for a rule, which a group has not
            told = f"Job submission failed: {error.__context__ or error}. "
            self._report_job_error_threadsafe(SubmittedJobInfo(job), told)

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise Ending

    def get_job_exec_prefix(self, job: Any) -> str:
        """Tells a job whether it is for one stage alone."""
        return "" if job.is_group() else f"export {usage.ALONE_VARIABLE}=yes"

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        super()._report_job_submission_threadsafe(job_info)
        self._submitted.add(job_info.external_jobid)

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """Of a job that could not be submitted; one that was taken all the same is submitted."""
        said = msg.partition("sbatch call:")[0].strip()
        passes = said.startswith("SLURM sbatch failed") and PASSES.search(said)
        if passes:
            self._pause(slurm.POLL_SECONDS)
        if taken := self._taken(job_info.job):
            logger.warning("SLURM has taken job %s, though sbatch says otherwise", taken)
            output = {"slurm_logfile": Path(slurm.output_of(taken))}
            self._report_job_submission_threadsafe(SubmittedJobInfo(job_info.job, taken, output))
        elif passes:
            logger.warning("%s It is submitted again.", said)
            self._again = True
        else:
            super()._report_job_error_threadsafe(job_info, msg)

    def _taken(self, job: Any) -> str:
        """The number of a job that SLURM has and that was not reported; "" where there is none."""
        wildcards = get_job_wildcards(job)
        comment = f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"
        known = slurm.queued(slurm.wait_for_answer(*ALL, pause=self._pause))
        return next((each.number for each in known if self._is_new(each) and each.comment == comment), "")

    def _is_new(self, job: slurm.QueuedJob) -> bool:
        """Whether it is of this run of Snakemake's, which knows nothing of it."""
        return job.name == self.run_uuid and job.number not in self._submitted

    def cancel(self) -> None:
        """End all jobs, also those that are being looked at, and submit none of those that wait for that."""
        self._ending.set()
        with self._submission:  # until the one that is being submitted has its number
            if failed := slurm.ask("scancel", f"--name={self.run_uuid}").failed:
                logger.error("%s; jobs go on: `scancel --name=%s` ends them", failed, self.run_uuid)
        self.shutdown()

    def shutdown(self) -> None:
        self._ending.set()
        super().shutdown()

    async def sleep(self) -> None:
        """Until the next look, or the end."""
        for _ in range(int(self.next_seconds_between_status_checks)):
            if self.wait:
                await asyncio.sleep(1)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """The jobs of `active_jobs` that go on; the others are reported."""
        ends: dict[str, str] = {}
        if active_jobs:
            async with self.status_rate_limiter:
                ends = await asyncio.to_thread(self._ends, {job.external_jobid for job in active_jobs})
        for job in active_jobs:
            end = ends.get(job.external_jobid)
            if end == "":
                end = _own_word(job)
            if end is None:
                yield job
            else:
                self._report_end(job, end)
        if ends or not active_jobs:
            pause = self.workflow.executor_settings.init_seconds_before_status_checks
        else:
            pause = min(self.next_seconds_between_status_checks + 10, LONGEST_PAUSE)  # type: ignore[has-type]
        self.next_seconds_between_status_checks = pause

    def _ends(self, jobs: set[str]) -> dict[str, str]:
        """How those of these jobs have ended that do not go on; "" where SLURM has forgotten that.

        The controller alone knows what goes on, and the accounting how that ended which it has forgotten.
        """
        if (answer := slurm.ask(*ALL)).failed:
            logger.warning("%s; the workflow goes on when SLURM answers again", answer.failed)
            return {}
        shown = slurm.queued(answer.text)
        self._end_orphans(shown)
        known = {job.number: job for job in shown if job.number in jobs}
        self._say_what_is_held(known.values())
        ends = {number: job.state for number, job in known.items() if job.state in slurm.ENDED}
        # By its number, for which no name or partition matters.
        forgotten = {job for job in jobs - known.keys() if slurm.is_forgotten(job)}
        return ends | self._ends_of_forgotten(forgotten)

    def _ends_of_forgotten(self, jobs: set[str]) -> dict[str, str]:
        if not jobs or not self._has_accounting:
            return dict.fromkeys(jobs, "")
        if (states := slurm.recorded(jobs)) is None:
            logger.warning("sacct does not answer; the workflow goes on when it does")
            return {}
        ends = {job: state for job, state in states.items() if state in slurm.ENDED}
        self._unknown = Counter({job: self._unknown[job] + 1 for job in jobs - ends.keys()})
        return ends | {job: "" for job, looks in self._unknown.items() if looks >= LOOKS}

    def _end_orphans(self, shown: list[slurm.QueuedJob]) -> None:
        """Cancel what SLURM took so late that it was submitted again."""
        if not self._submission.acquire(blocking=False):
            return  # a new one may be the one that is being submitted
        try:
            for job in filter(self._is_new, shown):
                if job.state not in slurm.ENDED:
                    logger.warning("SLURM has taken job %s after all; it is cancelled", job.number)
                    if not slurm.ask("scancel", job.number).failed:
                        self._submitted.add(job.number)  # and it is no later attempt
        finally:
            self._submission.release()

    def _say_what_is_held(self, jobs: Iterable[slurm.QueuedJob]) -> None:
        held = {job.number: job for job in jobs if job.held}
        for number in sorted(held.keys() - self._held):
            logger.warning(
                "SLURM holds job %s (%s): `scontrol release %s` lets it go on, `scancel %s` lets it be tried again",
                number, held[number].reason, number, number,
            )  # fmt: skip
        self._held = set(held)

    def _report_end(self, job: SubmittedJobInfo, end: str) -> None:
        number, output = job.external_jobid, job.aux["slurm_logfile"]
        if end == "COMPLETED":
            self.report_job_success(job)  # Snakemake looks whether its outputs are there
            if not self.workflow.executor_settings.keep_successful_logs:
                with suppress(OSError):
                    output.unlink()
            return
        said = f"ended as {end}" if end else "has failed or never began, and SLURM has forgotten it"
        self.report_job_error(job, f"SLURM job {number} {said}. ", aux_logs=[str(output)])

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        reason = attempts.reason_of(map(Path, job_info.job.log), job_info.external_jobid or "")
        job = job_info.job
        # Of a group, others may do better than the one that failed.
        if not job.is_group() and any(map(attempts.is_hopeless, map(Path, job.log))):
            # Snakemake submits it no more. Past the property, whose setter has resources counted anew for that attempt,
            # while those of the one that failed are still to be given back.
            job._attempt = max(job._attempt, job.restart_times + 1)
        super().report_job_error(job_info, msg=(msg or "") + (f"{reason}. " if reason else ""), **kwargs)


def _check_cluster(job: Any) -> None:
    flags = str(job.resources.get("slurm_extra") or "")
    found = [name for name in ELSEWHERE if job.resources.get(name)]
    found += [name for name in ELSEWHERE_VARIABLES if os.environ.get(name)]
    found += ["slurm_extra"] if ELSEWHERE_FLAG.search(flags) else []
    if found:
        raise WorkflowError(f"what runs on another cluster cannot be watched from here: take out {found[0]}")


def _own_word(job_info: SubmittedJobInfo) -> str | None:
    """How a job ended by its own notes: "COMPLETED" where each of its stages noted its begin and its end and left no note
    of a failure, else "". None where the disk does not tell."""
    number = job_info.external_jobid
    logs = [Path(log) for log in job_info.job.log]
    try:
        done = [
            not attempts.note_of(log).exists()
            and any(
                each.slurm_job == number and each.seconds is not None
                for each in usage.attempts(usage.ledger_of(log))
            )
            for log in logs
        ]
    except OSError as error:
        logger.warning("SLURM has forgotten job %s, and its notes cannot be read: %s", number, error)
        return None
    return "COMPLETED" if done and all(done) else ""
