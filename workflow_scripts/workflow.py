"""Run Snakemake with this workflow in the present folder: everything after the name is Snakemake's.

The folder has a config.yaml, which `medvqa config --write` makes, and gets results/. In a checkout `snakemake` does the same.
"""

import os
import sys
from pathlib import Path

from workflow_scripts.base import cli, shipped
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.flags import DEFAULT


def main(arguments: list[str]) -> int:
    if not DEFAULT.is_file():
        raise UserError(
            f"{DEFAULT}: not in this folder; `medvqa config --write` writes one with every default"
        )
    # The rules call `python`, which must be the one that has this package.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped.snakefile()), *arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(cli.run(main))
