"""Supervised fine-tuning of a model on the train records: `results/sft/{run}/`."""

import sys
from functools import partial

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str]) -> int:
    options = flags.training_options("sft", __doc__, arguments)
    base_model = options.base_model or options.layout.model(options.run.model_version, options.run.mode)
    with flags.training_place(options, "sft"):
        from workflow_scripts.stages import recorded_training, sft

        stage = partial(sft.overfit, steps=options.overfit) if options.overfit else sft.stage
        return recorded_training.command("sft", stage, options, base_model, arguments)


if __name__ == "__main__":
    sys.exit(cli.run(main))
