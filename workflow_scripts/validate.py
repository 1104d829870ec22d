"""Check the records of a run as a stranger reads them: `results/data/{run}/validation.json` and a page."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    options = parser.parse_args(arguments)
    run = flags.run_of(options)
    settings, layout = flags.stage_inputs(options, "validate", run)
    from workflow_scripts.stages import validate

    validate.stage(settings, layout, run)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
