"""Export a run's model for others: `results/export/{run}/` in the hub's layout, an adapter merged into its base.

With weights come the processor and its pixel limits, the chat template, all stop tokens, and a model card of figures and
limits. --push uploads it, after showing what would go.
"""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    parser.add_argument(
        "--stage",
        choices=("sft", "dpo"),
        help="this model of the run instead of the one that evaluation chose",
    )
    parser.add_argument("--adapter", action="store_true", help="the adapter alone, in peft's layout")
    parser.add_argument(
        "--push", metavar="USER/NAME", help="upload it to this repository, made private if new"
    )
    parser.add_argument("--yes", action="store_true", help="with --push: do not ask before uploading")
    options = parser.parse_args(arguments)
    run = flags.run_of(options)
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import export

    export.stage(settings, layout, run, options.stage, options.adapter)
    if options.push:
        export.push(layout.exported(run), options.push, options.yes)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
