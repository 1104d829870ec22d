"""Create the MLflow store once, before jobs start."""

import sys

from workflow_scripts import tracking
from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    options = flags.stage_parser(__doc__).parse_args(arguments)
    tracking.prepare(*flags.settings_and_layout(options))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
