"""Supervised fine-tuning of a model on the train records: `results/sft/{run}/`."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str]) -> int:
    options = flags.training_options("sft", __doc__, arguments)
    base_model = options.base_model or options.layout.model(options.run.model_version, options.run.mode)
    with flags.training_place(options, "sft"):
        from workflow_scripts.stages import sft
        from workflow_scripts.training import launch

        return launch.launch_or_run(
            "workflow_scripts.sft",
            arguments,
            options.settings.sft,
            options.layout.checkpoints("sft", options.run),
            lambda: sft.stage(options.settings, options.layout, options.run, base_model),
        )


if __name__ == "__main__":
    sys.exit(cli.run(main))
