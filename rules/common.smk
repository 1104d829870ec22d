# What every rule shares. The logic is in workflow_scripts/configuration/plan.py.
import gc
import os
import shutil
import signal

from snakemake.exceptions import WorkflowError

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.plan import Plan
from workflow_scripts.training.estimation.requests import Requests

try:
    plan = Plan(config, workflow.configfiles, prefix=workflow.modifier.path_modifier.prefix)
except UserError as error:
    raise WorkflowError(str(error))
requests = Requests(plan.config, plan.layout)  # memory and time, where the profile states none


# Jobs stay until the end: to look among thousands for garbage takes a tenth of the time of a plan.
gc.set_threshold(100_000)


# Not in the Snakemake within a SLURM job, which belongs to the one that submitted it.
if workflow.is_main_process:
    attempts.new_invocation()
    if shutil.which("squeue"):
        from workflow_scripts.base import slurm_executor

        slurm_executor.install()


# SLURM signals all processes of a job: the command ends by itself, saves and says so, while those around it wait.
if "SLURM_JOB_ID" in os.environ and not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if plan.config.cluster.container:
        slurm.hand_on_end()
    shell.prefix("set -euo pipefail; trap : TERM USR1; tee() {{ trap '' TERM USR1; command tee \"$@\"; }}; ")


wildcard_constraints:
    dataset="|".join(map(re.escape, plan.config.datasets)),
    source="|".join(map(re.escape, plan.sources)),
    model_version="|".join(map(re.escape, plan.config.models)),
    mode="thinking|base",
    model="untrained|sft|dpo|final",
    variant="original|blank|shuffled",


# What holds a model takes some of `models`, of which profiles/default gives a machine 100. On a cluster each job has a
# machine of its own, or its share of one.
resource_scopes:
    models="local",
