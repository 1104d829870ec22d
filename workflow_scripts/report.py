"""Bring the results of all runs together on one page, `results/report/index.html`, or print those of one run."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument(
        "--print", metavar="RUN", nargs="+", help="print the scores of these runs instead of writing the page"
    )
    parser.add_argument(
        "--format",
        choices=("text", "latex", "markdown"),
        default="text",
        help="with --print: latex or markdown is one table for a paper, of all runs where none is named",
    )
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import report

    if options.print or options.format != "text":
        print(report.printed(settings, layout, options.print or [], options.format))
    else:
        report.stage(layout)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
