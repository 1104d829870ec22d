"""Say which configuration and commit make an evaluation again, and what differs from them here: code, data, machine."""

import sys
from pathlib import Path

from workflow_scripts.base import cli


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("evaluation", type=Path, help="such as results/eval/slake_4.1v_thinking.json")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write config.yaml and reproduce.sh there besides"
    )
    options = parser.parse_args(arguments)
    from workflow_scripts.stages import reproduce

    print(reproduce.reproduce(options.evaluation, options.write))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
