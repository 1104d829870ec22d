"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str]) -> int:
    options = flags.training_options("dpo", __doc__, arguments)
    base_model = options.base_model or options.layout.trained("sft", options.run)
    with flags.training_place(options, "dpo"):
        from workflow_scripts.stages import dpo
        from workflow_scripts.training import launch

        return launch.launch_or_run(
            "workflow_scripts.dpo",
            arguments,
            options.settings.dpo,
            options.layout.checkpoints("dpo", options.run),
            lambda: dpo.stage(options.settings, options.layout, options.run, base_model),
        )


if __name__ == "__main__":
    sys.exit(cli.run(main))
