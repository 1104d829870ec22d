"""What every command shares: verbosity, logging, and errors as one clear line."""

import argparse
import errno
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from workflow_scripts.base import attempts, environment, job_log, usage
from workflow_scripts.base.errors import STOPPING, Terminated, UserError, brief
from workflow_scripts.base.processes import forget_other_launchers, processes

FULL = {
    errno.ENOSPC: "the disk is full, of bytes or of files",
    errno.EDQUOT: "your quota of the disk, of bytes or of files, is used up",
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help explains the flags\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of every command."""
    result = _Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    _add_verbosity(result)
    return result


def _add_verbosity(result: argparse.ArgumentParser) -> None:
    result.add_argument("--log_level", default="info", choices=["debug", "info", "warning", "error"])
    result.add_argument(
        "--debug",
        action="store_true",
        help="--log_level debug, tracebacks, versions; of a training its first batch",
    )


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> int:
    """Run a command; what a user can mend, Ctrl-C, SIGTERM or SIGUSR1 ends it with one line and a status.

    The status is 1, or 128 + its number after a signal: 143 after SIGTERM, 138 after SIGUSR1, a scheduler's warning.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug, level = _verbosity(arguments)
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # Libraries make millions of objects that stay, among which Python would look for garbage a thousand times: a fifth
    # of the time to import them.
    gc.set_threshold(20_000)
    _keep_private()
    if not debug:
        _quiet_libraries()
    forget_other_launchers()

    def command() -> int:
        if debug and not processes().rank:
            _tell_versions()
        return attempts.recorded(main, arguments)

    status = 1
    try:
        with _signals_raised(), usage.recorded():
            return job_log.recorded(command, arguments)
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "stopped"
    except Terminated as error:
        message, status = str(error), error.status
    except Exception as error:
        if not (mendable := _of_the_machine(error)):
            raise
        message = mendable
    if debug:
        logging.exception("traceback, because of --debug")
    print(f"error: {message}", file=sys.stderr)
    return status


def _tell_versions() -> None:
    """Log the code, the libraries and the machine."""
    made = environment.made()
    commit = (
        f"commit {made['commit']}{', changed since' if made['dirty'] else ''}"
        if made["commit"]
        else "no commit"
    )
    machine = made["hardware"]
    logging.debug("medvqa %s, %s, Python %s", made["package"], commit, made["python"])
    logging.debug("libraries: %s", ", ".join(f"{name} {found}" for name, found in made["libraries"].items()))
    logging.debug(
        "machine: %s, %d cores, %s GiB, GPUs: %s, driver %s", machine["cpu"], machine["cores"], machine["memory_gib"],
        ", ".join(machine["gpus"]) or "none", machine["driver"] or "none",
    )  # fmt: skip


def _of_the_machine(error: Exception) -> str:
    """What a full disk, or a file or folder that cannot be used, means to the user; "" for any other error."""
    # Libraries wrap a full disk in errors of their own.
    for number, what in FULL.items():
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return f"{what} ({error}); free some and start again"
    if "inline_container.cc" in str(error):  # torch.save, which does not say why it could not write
        return f"a checkpoint could not be written ({brief(error)}); is the disk full? Free some space and start again"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}; give another path, or make this one usable"
    return ""


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise Terminated at SIGTERM or SIGUSR1, so that half-written outputs are removed.

    `signal.signal` overrules it.
    """
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker, which has nothing to remove
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)  # a second one must not stop the removal
        raise Terminated(number)

    def raise_again(lost: Any) -> None:
        """Python ignores what is raised in a finalizer, where the signal may happen to come."""
        if isinstance(lost.exc_value, Terminated):
            number = lost.exc_value.number
            signal.signal(signal.SIGALRM, lambda _, frame: terminate(number, frame))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            hook(lost)

    before = {number: signal.signal(number, terminate) for number in STOPPING}
    before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
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
