"""Write config.yaml and its schema from the settings, or print every error of a configuration."""

import sys
from pathlib import Path

from workflow_scripts.base import cli, files
from workflow_scripts.configuration import reading, text
from workflow_scripts.configuration.settings import Config


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--write", action="store_true", help="write config.yaml and config.schema.json here")
    parser.add_argument(
        "--check", nargs="+", type=Path, metavar="FILE", help="print every error of these files, merged"
    )
    options = parser.parse_args(arguments)
    if options.write:
        files.write_text(Path("config.yaml"), text.to_yaml(Config()))
        files.write_text(Path("config.schema.json"), text.to_schema())
    if options.check:
        reading.load(options.check)
        print(f"{', '.join(map(str, options.check))}: good")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
