# What every rule shares. The logic is in workflow_scripts/plan.py.
from snakemake.exceptions import WorkflowError

from workflow_scripts.errors import UserError
from workflow_scripts.plan import Plan

try:
    plan = Plan(config, where=workflow.configfiles, root=workflow.basedir)
except UserError as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    dataset="|".join(map(re.escape, plan.config.datasets)),
    source="|".join(map(re.escape, plan.sources)),
    model_version="|".join(map(re.escape, plan.config.models)),
    mode="thinking|base",
