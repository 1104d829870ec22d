"""Turn a YAML file of LLaMA-Factory or ms-swift into a configuration of ours, and say which keys have no counterpart."""

import sys
from pathlib import Path

from workflow_scripts.base import cli, files
from workflow_scripts.configuration.foreign import conversion


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "file", type=Path, help="what `llamafactory-cli train` or `swift sft --config` is given"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="GPUs that it was run on: batches count over all of them"
    )
    parser.add_argument("--output", type=Path, help="the file to write; default: print it")
    options = parser.parse_args(arguments)
    found = conversion.convert(options.file, options.gpus)
    print("\n".join(conversion.report(found)), file=sys.stderr)
    if options.output:
        files.write_text(options.output, conversion.as_yaml(found, options.file))
    else:
        print(conversion.as_yaml(found, options.file), end="")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
