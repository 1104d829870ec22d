"""What SLURM's commands do where they tell nothing, for stand-ins of them."""

AWAY = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
