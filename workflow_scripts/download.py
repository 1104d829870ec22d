"""Fetch what a run starts from: a data set's raw files or a model, from the hub, a local copy, or embedded."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="fetch nothing; compare the files that are there with the manifest",
    )
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    chosen = vars(options)
    model = (options.model_version, options.mode) if {"model_version", "mode"} <= chosen.keys() else None
    if not model and "dataset" not in chosen:
        raise UserError("say what to download: --dataset, or --model_version with --mode")
    from workflow_scripts.stages import download

    act = download.verify if options.verify else download.fetch
    act(settings, layout, chosen.get("dataset"), model)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
