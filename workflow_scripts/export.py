"""Export a run's model for others: `results/export/{run}/` in the hub's layout, an adapter merged into its base.

With weights come the processor and its pixel limits, the chat template, all stop tokens, and a model card of figures and
limits. --push uploads it, after showing what would go. With --model_path and --output any other model or adapter is exported,
whoever has trained it.
"""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument(
        "--model_path", type=flags.model_folder, help="this model or adapter instead of a run's"
    )
    parser.add_argument("--output", type=Path, help="with --model_path: the folder to write")
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
    from workflow_scripts.stages import export, push

    if path := options.model_path:
        if not options.output or options.output.exists():
            raise UserError("--model_path: give a folder that is not there yet as --output")
        folder, run = options.output, flags.run_of_model(options, path)
        export.export_model(path, run.model_version, run.mode, folder, options.adapter)
    else:
        run = flags.run_of(options)
        settings, layout = flags.settings_and_layout(options)
        folder = layout.exported(run)
        export.stage(settings, layout, run, options.stage, options.adapter)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if options.push:
        push.push(folder, options.push, options.yes)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
