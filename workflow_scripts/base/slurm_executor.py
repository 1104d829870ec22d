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
import time
from collections import Counter
from collections.abc import AsyncIterator
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

LONGEST_PAUSE = 180  # seconds between two looks while no job ends; see slurm.REMEMBER_SECONDS
# The accounting may be late: so often neither it nor the controller knows a job before that counts as forgotten.
LOOKS = 5
# What sbatch says where the controller may have taken the job, or will take it soon.
PASSES = re.compile("timed out|Unable to contact|temporarily|Zero Bytes|Connection re|Transport endpoint")
# Why a job waits for somebody to do something.
HELD = re.compile("held|BadConstraints|NeverSatisfied", re.IGNORECASE)
HELD_STATES = {"REQUEUE_HOLD", "SPECIAL_EXIT"}
ELSEWHERE = (
    "cluster",
    "clusters",
    "slurm_cluster",
)  # resources by which the plugin submits to another cluster


def install() -> None:
    """Let this be what Snakemake takes for `executor: slurm`."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = SteadyExecutor


class SteadyExecutor(Executor):  # type: ignore[misc]  # the plugin states no types
    """Executor whose jobs are all told of; says of those that failed why."""

    def __init__(self, *args: Any) -> None:
        # Before the thread that looks after the jobs begins, in the last line.
        self._submission = threading.RLock()
        self._submitted: set[str] = set()
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
        """Submit a job, once SLURM answers: what cannot be submitted would count as failed."""
        with self._submission:  # so that a job that nobody was told of is the one that is being submitted
            slurm.wait_for_answer("scontrol", "show", "config")
            os.environ[usage.ALONE_VARIABLE] = "" if job.is_group() else "yes"  # which sbatch hands on
            try:
                if any(job.resources.get(name) for name in ELSEWHERE):
                    raise WorkflowError("what runs on another cluster cannot be watched: take out `clusters`")
                super().run_job(job)
            except Exception as error:  # the plugin's own report asks for a rule, which a group has not
                told = f"Job submission failed: {error.__context__ or error}. "
                self._report_job_error_threadsafe(SubmittedJobInfo(job), told)
            finally:
                os.environ.pop(usage.ALONE_VARIABLE, None)

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        self._submitted.add(job_info.external_jobid)
        super()._report_job_submission_threadsafe(job_info)

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        """Of a job that could not be submitted; one that was taken all the same is submitted."""
        passes = PASSES.search(msg.partition("sbatch call:")[0])
        if passes:
            time.sleep(slurm.POLL_SECONDS)
        if taken := self._taken(job_info.job):
            logger.warning("SLURM has taken job %s, though sbatch says otherwise", taken)
            output = {"slurm_logfile": Path(slurm.output_of(taken))}
            self._report_job_submission_threadsafe(SubmittedJobInfo(job_info.job, taken, output))
        elif passes:
            logger.warning("sbatch: %s; submitted again", passes[0])
            self.run_job(job_info.job)
        else:
            super()._report_job_error_threadsafe(job_info, msg)

    def _taken(self, job: Any) -> str:
        """The number of a job that SLURM has and that was not reported; "" where there is none."""
        wildcards = get_job_wildcards(job)
        comment = f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"
        known = slurm.queued(slurm.wait_for_answer(*self._queue()))
        new = (
            each.number for each in known if each.comment == comment and each.number not in self._submitted
        )
        return next(new, "")

    def _queue(self) -> tuple[str, ...]:
        return (*slurm.QUEUE, "--states=all", f"--name={self.run_uuid}")

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """The jobs of `active_jobs` that go on; the others are reported."""
        ends: dict[str, str] = {}
        if active_jobs:
            async with self.status_rate_limiter:
                ends = await asyncio.to_thread(self._ends, {job.external_jobid for job in active_jobs})
        for job in active_jobs:
            if job.external_jobid in ends:
                self._report_end(job, ends[job.external_jobid])
            else:
                yield job
        if ends or not active_jobs:
            pause = self.workflow.executor_settings.init_seconds_before_status_checks
        else:
            pause = min(self.next_seconds_between_status_checks + 10, LONGEST_PAUSE)  # type: ignore[has-type]
        self.next_seconds_between_status_checks = pause

    def _ends(self, jobs: set[str]) -> dict[str, str]:
        """How those of these jobs have ended that do not go on; "" where SLURM has forgotten that.

        The controller alone knows what goes on, and the accounting how that ended which it has forgotten.
        """
        if (answer := slurm.ask(*self._queue())).failed:
            logger.warning("%s; the workflow goes on when SLURM answers again", answer.failed)
            return {}
        known = {job.number: job for job in slurm.queued(answer.text) if job.number in jobs}
        for job in known.values():
            self._say_if_held(job)
        ends = {number: job.state for number, job in known.items() if job.state in slurm.ENDED}
        return ends | self._ends_of_forgotten(jobs - known.keys())

    def _ends_of_forgotten(self, jobs: set[str]) -> dict[str, str]:
        if not jobs or not self._has_accounting():
            return dict.fromkeys(jobs, "")
        if (states := slurm.recorded(jobs)) is None:
            logger.warning("sacct does not answer; the workflow goes on when it does")
            return {}
        ends = {job: state for job, state in states.items() if state in slurm.ENDED}
        self._unknown = Counter({job: self._unknown[job] + 1 for job in jobs - ends.keys()})
        return ends | {job: "" for job, looks in self._unknown.items() if looks >= LOOKS}

    def _has_accounting(self) -> bool:
        asked = self.get_status_command() == "sacct" and shutil.which("sacct")
        return bool(asked) and slurm.has_accounting(slurm.configuration())

    def _say_if_held(self, job: slurm.QueuedJob) -> None:
        waits = job.state in HELD_STATES or (job.state == "PENDING" and HELD.search(job.reason))
        if waits and job.number not in self._held:
            self._held.add(job.number)
            logger.warning(
                "SLURM holds job %s (%s): `scontrol release %s` lets it go on, `scancel %s` lets it be tried again",
                job.number, job.reason, job.number, job.number,
            )  # fmt: skip

    def _report_end(self, job: SubmittedJobInfo, end: str) -> None:
        number = job.external_jobid
        output = job.aux["slurm_logfile"]
        if end == "COMPLETED" or (not end and _has_succeeded(job)):
            self.report_job_success(job)  # Snakemake looks whether its outputs are there
            if not self.workflow.executor_settings.keep_successful_logs:
                with suppress(OSError):
                    output.unlink()
            return
        said = f"ended as {end}" if end else "has failed or never began, and SLURM has forgotten it"
        self.report_job_error(job, f"SLURM job {number} {said}. ", aux_logs=[str(output)])

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        reason = attempts.reason_of(map(Path, job_info.job.log), job_info.external_jobid or "")
        super().report_job_error(job_info, msg=(msg or "") + (f"{reason}. " if reason else ""), **kwargs)


def _has_succeeded(job_info: SubmittedJobInfo) -> bool:
    """Whether the job itself has told so: it noted that it began, and nothing else since."""
    return all(
        not attempts.note_of(log).exists()
        and any(each.slurm_job == job_info.external_jobid for each in usage.attempts(usage.ledger_of(log)))
        for log in map(Path, job_info.job.log)
    )
