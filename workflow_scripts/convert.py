"""Turn the raw files of a data set into training records: `results/data/{run}/{train,validation,test}.jsonl`."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    options = parser.parse_args(arguments)
    run = flags.run_of(options)
    settings, layout = flags.stage_inputs(options, "convert", run)
    from workflow_scripts.stages import convert

    convert.stage(settings, layout, run)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
