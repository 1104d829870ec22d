"""What the commands share: flags, logging, and errors as one clear line."""

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from workflow_scripts import config
from workflow_scripts.errors import UserError
from workflow_scripts.paths import Layout, Run

# Names the configuration for the commands that Snakemake starts.
CONFIG_VARIABLE = "MEDVQA_CONFIG"


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of every command."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    result.add_argument("--log_level", default="info", choices=["debug", "info", "warning", "error"])
    result.add_argument("--debug", action="store_true", help="same as --log_level debug, with tracebacks")
    return result


def stage_parser(description: str) -> argparse.ArgumentParser:
    """A parser for a stage of the chain: where the configuration and the results are, and which run."""
    result = parser(description)
    default = Path(os.environ.get(CONFIG_VARIABLE, "config.yaml"))
    result.add_argument("--config", nargs="+", type=Path, default=[default], help="later over earlier files")
    result.add_argument("--results", type=Path, default=Path("results"), help="the folder of everything made")
    return result


def add_run_flags(result: argparse.ArgumentParser, required: bool = True) -> None:
    """The three names that make a run."""
    for name, meaning in (
        ("dataset", "slake, rad, pathvqa, combined, or one of your own"),
        ("model_version", "4.1v, 4.5v, or another of the catalogue"),
        ("mode", "thinking or base"),
    ):
        result.add_argument(f"--{name}", required=required, help=meaning, default=argparse.SUPPRESS)


def run(main: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> int:
    """Run a command; a UserError, a full disk or Ctrl-C ends it with one line and a non-zero status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    level = "debug" if debug else _flag(arguments, "--log_level", "info")
    logging.basicConfig(
        level=getattr(logging, level.upper(), logging.INFO),
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    _keep_private()
    if not debug:
        _quiet_libraries()
    try:
        return main(arguments)
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "stopped"
    except Exception as error:
        # Libraries wrap a full disk in errors of their own.
        if getattr(error, "errno", None) != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(error):
            raise
        message = f"the disk is full ({error}); free some space and start again"
    if debug:
        logging.exception("traceback, because of --debug")
    print(f"error: {message}", file=sys.stderr)
    return 1


def _keep_private() -> None:
    """Switch off the usage reports that libraries send home by default, and what may log a token."""
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(variable, "true")
    logging.getLogger("httpcore2").setLevel(logging.INFO)  # below that, all headers that a server sends


def _quiet_libraries() -> None:
    """Keep remarks of libraries about themselves off the screen; --debug shows them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("huggingface_hub").propagate = False  # it prints what it logs by itself
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a dead tracker is warned about once, by us
    for library in ("httpx", "httpx2", "filelock", "PIL", "matplotlib", "asyncio", "alembic", "mlflow"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator" not in record.getMessage())


def _flag(arguments: list[str], name: str, default: str) -> str:
    return arguments[arguments.index(name) + 1] if name in arguments[:-1] else default


def run_of(options: argparse.Namespace) -> Run:
    """The run that the flags of `add_run_flags` name."""
    return Run(options.dataset, options.model_version, options.mode)


def training_options(stage: str, description: str, arguments: list[str]) -> argparse.Namespace:
    """The flags of sft and dpo, with `run`, `layout` and the `settings` that they lead to."""
    result = stage_parser(description)
    add_run_flags(result)
    result.add_argument(
        "--method", choices=["lora", "full"], help=f"instead of {stage}.method of the configuration"
    )
    result.add_argument("--base_model", type=Path, help="start from this model or adapter instead")
    options = result.parse_args(arguments)
    options.run, options.layout = run_of(options), Layout(options.results)
    options.settings = config.load(options.config)
    if options.method:
        getattr(options.settings, stage).method = options.method
    return options
