"""What the commands share: flags, logging, and errors as one clear line."""

import argparse
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow_scripts import config, files
from workflow_scripts.errors import STOPPING, Terminated, UserError
from workflow_scripts.models.catalogue import MODES, VERSIONS
from workflow_scripts.paths import Layout, Run

# Names the configuration for the commands that Snakemake starts.
CONFIG_VARIABLE = "MEDVQA_CONFIG"


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of every command."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    _add_verbosity(result)
    return result


def _add_verbosity(result: argparse.ArgumentParser) -> None:
    result.add_argument("--log_level", default="info", choices=["debug", "info", "warning", "error"])
    result.add_argument("--debug", action="store_true", help="same as --log_level debug, with tracebacks")


def stage_parser(description: str) -> argparse.ArgumentParser:
    """A parser for a stage of the chain: where the configuration and the results are, and which run."""
    result = parser(description)
    default = Path(os.environ.get(CONFIG_VARIABLE, "config.yaml"))
    result.add_argument("--config", nargs="+", type=Path, default=[default], help="later over earlier files")
    result.add_argument("--results", type=Path, default=Path("results"), help="the folder of everything made")
    return result


RUN_FLAGS = {
    "dataset": "slake, rad, pathvqa, combined, or one of your own",
    "model_version": "4.1v, 4.5v, or another of the catalogue",
    "mode": "thinking or base",
}


def add_run_flags(result: argparse.ArgumentParser, required: bool = True) -> None:
    """The three names that make a run."""
    for name, meaning in RUN_FLAGS.items():
        result.add_argument(f"--{name}", required=required, help=meaning, default=argparse.SUPPRESS)


def run(main: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> int:
    """Run a command; a UserError, a full disk, Ctrl-C, SIGTERM or SIGUSR1 ends it with one line and a status.

    The status is 1, or 128 + its number after a signal: 143 after SIGTERM, 138 after SIGUSR1, a scheduler's warning.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug, level = _verbosity(arguments)
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    _keep_private()
    if not debug:
        _quiet_libraries()
    status = 1
    try:
        with _signals_raised():
            return main(arguments)
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "stopped"
    except Terminated as error:
        message, status = str(error), error.status
    except Exception as error:
        # Libraries wrap a full disk in errors of their own.
        if getattr(error, "errno", None) != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(error):
            raise
        message = f"the disk is full ({error}); free some space and start again"
    if debug:
        logging.exception("traceback, because of --debug")
    print(f"error: {message}", file=sys.stderr)
    return status


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise Terminated at SIGTERM or SIGUSR1, so that half-written outputs are removed.

    `signal.signal` overrules it.
    """
    process = os.getpid()

    def terminate(number, frame):
        if os.getpid() != process:  # a forked worker, which has nothing to remove
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)  # a second one must not stop the removal
        raise Terminated(number)

    before = {number: signal.signal(number, terminate) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _verbosity(arguments: list[str]) -> tuple[bool, str]:
    """(whether to debug, the log level) that the flags of every command ask for, before a command parses them."""
    flags = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    _add_verbosity(flags)
    try:
        known, _ = flags.parse_known_args(arguments)
    except argparse.ArgumentError:  # the command's own parser will say so
        return False, "info"
    return known.debug, "debug" if known.debug else known.log_level


def run_of(options: argparse.Namespace, model: Path | None = None) -> Run:
    """The run that the flags of `add_run_flags` name, and where they leave one out, `model`."""
    return Run(*run_names(options, model, tuple(RUN_FLAGS)))


def run_names(options: argparse.Namespace, model: Path | None, needed: tuple[str, ...]) -> list[str]:
    """The values of the flags `needed`; one that was left out is that of the run that trained `model`."""
    known = (names_of_model(model) if model else {}) | vars(options)
    missing = [name for name in needed if not known.get(name)]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        untold = f": neither metrics.json nor the folder's name of {model} tells" if model else ""
        raise UserError(f"say {flags}{untold}")
    return [known[name] for name in needed]


def names_of_model(model: Path) -> dict[str, str]:
    """What is known of the run that trained `model`: by its metrics.json, else by its folder's name.

    A folder named {model_version}_{mode}, as of a download, tells these two.
    """
    metrics = model / "metrics.json"
    trained = files.read_json(metrics).get("run", "") if metrics.is_file() else ""
    for name in (trained, model.resolve().name):
        parts = name.split("_")
        if len(parts) in (2, 3) and parts[-2] in VERSIONS and parts[-1] in MODES:
            return dict(zip(reversed(RUN_FLAGS), reversed(parts), strict=False))
    return {}


def comma_separated(text: str) -> list[str]:
    """Names that are written with commas between them."""
    return [name for name in text.split(",") if name]


def training_options(stage: str, description: str, arguments: list[str]) -> argparse.Namespace:
    """The flags of sft and dpo, with `run`, `layout` and the `settings` that they lead to."""
    result = stage_parser(description)
    add_run_flags(result, required=False)
    result.add_argument(
        "--method", choices=["lora", "full"], help=f"instead of {stage}.method of the configuration"
    )
    result.add_argument("--base_model", type=Path, help="start from this model or adapter instead")
    options = result.parse_args(arguments)
    options.run, options.layout = run_of(options, options.base_model), Layout(options.results)
    options.settings = config.load(options.config)
    if options.method:
        getattr(options.settings, stage).method = options.method
    return options
