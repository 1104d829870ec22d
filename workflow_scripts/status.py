"""Show how far each run is: its stages, why one has ended, where its log is, and how to go on."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="such as slake_4.1v_base; none: all")
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import status

    status.command(settings, layout, options.runs)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
