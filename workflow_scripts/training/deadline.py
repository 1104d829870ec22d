"""The time limit of the SLURM job of a training, which saves and ends by itself as late as it can before that.

SLURM's own warning (`sbatch --signal`) reaches every process of a step, Snakemake's and `tee` among them, and how early
it comes is fixed at submission, before anybody knows how long a save takes.
"""

import logging
import os
import time
from pathlib import Path

from workflow_scripts.base import slurm
from workflow_scripts.base.processes import processes
from workflow_scripts.training import saving

logger = logging.getLogger(__name__)

FACTOR = 2  # a save may take so many times as long as the last one
MARGIN = 15.0  # seconds besides: SLURM's limit is of the job, which began before the training
GUESSED_SHARE = 0.25  # of the time that is left: no more of it is given up for a guess


class Deadline:
    """When this process's SLURM job ends, and how long a save takes in `folder`; it never comes outside SLURM.

    `guessed` are the seconds of a save before one has been measured.
    """

    def __init__(self, folder: Path, guessed: float) -> None:
        self._folder, self._guessed = folder, guessed
        self._job = os.environ.get("SLURM_JOB_ID", "")
        self._end: float | None = None  # by time.monotonic()
        self._step_seconds = 0.0  # of the longest one, without saves and validations
        self._validation_seconds = 0.0  # of the longest one: it comes between a step and its save
        self.goes_on()
        if left := self._asked():
            self._guessed = min(guessed, GUESSED_SHARE * left / FACTOR)
            if processes().rank == 0:
                logger.info(
                    "the job ends in %.0f min; a last save begins %.0f s before that", left / 60, self.lead
                )

    @property
    def lead(self) -> float:
        """Seconds before the end at which the last save begins."""
        return FACTOR * (self._guessed if self._last is None else self._last) + MARGIN

    def step_ends(self) -> None:
        """Measure the step, with what came between the one before, or what followed that, and this moment."""
        self._step_seconds = max(self._step_seconds, self._lap())

    def validation_ends(self) -> None:
        """Measure the validation that followed a step."""
        self._validation_seconds = max(self._validation_seconds, self._lap())

    def goes_on(self) -> None:
        """Steps begin, after a save or after all that comes before the first one."""
        self._since = time.monotonic()
        self._last = saving.last_seconds(self._folder)

    def _lap(self) -> float:
        before, self._since = self._since, time.monotonic()
        return self._since - before

    def has_come(self) -> bool:
        """Whether a save must begin now, for after another step it would be too late."""
        if not self._is_near():
            return False
        self._asked()  # the limit may have been raised
        return self._is_near()

    def _is_near(self) -> bool:
        needed = self._step_seconds + self._validation_seconds + self.lead
        return self._end is not None and time.monotonic() + needed > self._end

    def _asked(self) -> float | None:
        """The seconds that SLURM leaves, where it tells; what it told before holds where it does not answer."""
        left = slurm.seconds_left(self._job) if self._job else None
        if left is not None:
            self._end = time.monotonic() + left
        return left
