"""Create the MLflow store once, before jobs start, and close the runs of stages that were killed.

With --check say what is configured, with --sync send what trackers have missed.
"""

import logging
import sys

from workflow_scripts import tracking
from workflow_scripts.base import cli, credentials
from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration import flags
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import check

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="say what is configured; nothing is sent")
    choice.add_argument("--sync", action="store_true", help="send what trackers have missed, each line once")
    options = parser.parse_args(arguments)
    settings, layout = flags.settings_and_layout(options)
    if options.check:
        print("\n".join(check.lines(settings, layout)))
    elif options.sync:
        _sync(settings, layout)
    else:
        tracking.prepare(settings, layout)
    return 0


def _sync(settings: Config, layout: Layout) -> None:
    total = 0
    failed: dict[str, tuple[str, Exception]] = {}
    for path, by_tracker in tracking.sync(settings, layout).items():
        for name, found in by_tracker.items():
            if isinstance(found, Exception):
                failed.setdefault(name, (path, found))
            else:
                total += found
                if found:
                    logger.info("%s: %d line(s) sent to %s", path, found, name)
    if failed:
        name, (path, error) = next(iter(failed.items()))
        told = credentials.hidden(brief(error))
        raise UserError(f"{name}: {path} is not sent whole ({told}); start it, and --sync again")
    logger.info("%d line(s) sent; every tracker has everything", total)


if __name__ == "__main__":
    sys.exit(cli.run(main))
