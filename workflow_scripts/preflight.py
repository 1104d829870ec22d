"""Check, before anything long is queued, that this machine or cluster can run the workflow.

One line for each check: ok, warn, or fail with what to change; the status is 1 where one failed. With SLURM, the request
of each stage is shown to sbatch without queueing it, and a job of seconds looks at the folder from a compute node.
"""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument(
        "--profile", default="slurm", help="a profile of profiles/, or its folder; none: this machine alone"
    )
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import preflight

    profile = None if options.profile == "none" else preflight.read_profile(Path(options.profile))
    return preflight.command(settings, layout, profile)


if __name__ == "__main__":
    sys.exit(cli.run(main))
