"""Turn the raw files of a data set into training records: `results/data/{run}/{train,validation,test}.jsonl`."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import convert

    convert.stage(settings, layout, flags.run_of(options))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
