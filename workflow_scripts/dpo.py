"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

import sys
from functools import partial

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str]) -> int:
    options = flags.training_options("dpo", __doc__, arguments)
    base_model = options.base_model or options.layout.trained("sft", options.run)
    with flags.training_place(options, "dpo"):
        from workflow_scripts.stages import dpo, recorded_training

        stage = partial(dpo.overfit, steps=options.overfit) if options.overfit else dpo.stage
        return recorded_training.command("dpo", stage, options, base_model, arguments)


if __name__ == "__main__":
    sys.exit(cli.run(main))
