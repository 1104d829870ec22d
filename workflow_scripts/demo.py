"""Run the workflow with profiles/demo and say what each stage is for, how long it will take and how long it took."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help="such as results/eval/slake_4.1v_base.json"
    )
    options = parser.parse_args(arguments)
    from workflow_scripts.stages import demo

    return demo.run(options.targets)


if __name__ == "__main__":
    sys.exit(main())
