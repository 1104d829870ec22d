"""Pack a run as an RO-Crate: its results, configuration and provenance, described for people and machines."""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument("--run", required=True, help="such as slake_4.1v_thinking")
    parser.add_argument(
        "--output", type=Path, help="a folder, or a file ending in .zip; default: results/crates/{run}.zip"
    )
    parser.add_argument(
        "--pages",
        action="store_true",
        help="pack the pages too, which show images of the data: see their licence",
    )
    parser.add_argument(
        "--snakemake_report",
        action="store_true",
        help="pack Snakemake's own report too, which has the pages in it",
    )
    options = parser.parse_args(arguments)
    _, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import crate

    output = options.output or layout.crate(options.run)
    crate.export(layout, options.run, output, options.pages, options.snakemake_report)
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
