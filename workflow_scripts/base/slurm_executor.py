"""Snakemake's executor for SLURM, which waits for a cluster that does not answer and for no job that SLURM has forgotten.

The executor of the plugin (2.8) asks five times within a second how its jobs are. Where nobody answers it drops them
all, and Snakemake waits for ever; and so it does for a job that squeue no longer shows, and for one that sacct calls
"CANCELLED by 1000". One that lost its node counts as failed, also where SLURM starts it again, and a second job would work
on the same.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_slurm import Executor
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from workflow_scripts.base import attempts, slurm

logger = logging.getLogger(__name__)


def install() -> None:
    """Let this be what Snakemake takes for `executor: slurm`."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = SteadyExecutor


class SteadyExecutor(Executor):  # type: ignore[misc]  # the plugin states no types
    """Executor whose jobs are all told of, whatever SLURM answers; says of those that failed why."""

    def __init__(self, *args: Any) -> None:
        self._told: set[int] = set()  # before the thread that looks after the jobs begins, in the next line
        super().__init__(*args)

    def __post_init__(self, test_mode: bool = False) -> None:
        super().__post_init__(test_mode)
        if slurm.wait_for_earlier_jobs():
            logger.warning("they have ended; planning anew what is left to do")
            self.workflow.persistence.unlock()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def run_job(self, job: Any) -> None:
        """Submit a job, once SLURM answers: what cannot be submitted would count as failed."""
        slurm.wait_for_answer("scontrol", "show", "config")
        super().run_job(job)

    def report_job_success(self, job_info: SubmittedJobInfo) -> None:
        self._told.add(id(job_info))
        super().report_job_success(job_info)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        if job_info.external_jobid and slurm.goes_on(job_info.external_jobid):
            return  # another job for the same would run beside it
        self._told.add(id(job_info))
        reason = attempts.reason_of(map(Path, job_info.job.log), job_info.external_jobid or "")
        told = " ".join(filter(None, [msg, reason and f"{reason}. "]))
        super().report_job_error(job_info, msg=told, **kwargs)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """The jobs of `active_jobs` that go on; the others have been reported."""
        self._told.clear()
        async for _ in super().check_active_jobs(active_jobs):
            pass
        left = [job for job in active_jobs if id(job) not in self._told]
        numbers = {job.external_jobid for job in left if job.external_jobid}
        ended = await asyncio.to_thread(self._ended, numbers) if numbers else {}
        for job in left:
            number = job.external_jobid
            if number not in ended:
                yield job
            elif state := ended[number]:
                self.report_job_error(job, f"SLURM job {number} ended as {state}.")
            elif any(attempts.note_of(Path(log)).exists() for log in job.job.log):
                self.report_job_error(job, f"SLURM has forgotten job {number}, which failed.")
            else:  # Snakemake looks whether its outputs are there
                self.report_job_success(job)

    def _ended(self, jobs: set[str]) -> dict[str, str]:
        """How those jobs have ended of which the plugin hears nothing; "" where SLURM has forgotten that."""
        if self.get_status_command() == "sacct" and slurm.has_accounting(slurm.configuration()):
            return slurm.ended_badly(jobs)
        return dict.fromkeys(self._forgotten(jobs), "")

    def _forgotten(self, jobs: set[str]) -> set[str]:
        """Those jobs that the controller no longer knows."""
        asked = ("squeue", "--noheader", "--states=all", "--format=%i", f"--name={self.run_uuid}")
        if (answer := slurm.ask(*asked)).failed:
            logger.warning("%s; the workflow goes on when SLURM answers again", answer.failed)
            return set()
        known = {number.partition("_")[0] for number in answer.text.split()}
        return {number for number in jobs if number.partition("_")[0] not in known}
