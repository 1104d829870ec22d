"""Bring the results of all runs together on one page, `results/report/index.html`, or print those of one run."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument(
        "--print", metavar="RUN", help="print the scores of this run instead of writing the page"
    )
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import report

    if options.print:
        print(report.printed(settings, layout, options.print))
    else:
        report.stage(layout)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
