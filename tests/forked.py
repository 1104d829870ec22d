"""Commands in copies of a process that has imported their libraries, for importing takes most of their time."""

import atexit
import gc
import importlib
import json
import logging
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

HEAVY = (
    "mlflow.store.tracking.sqlalchemy_store",
    "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.auto.processing_auto",
    "transformers.models.glm4v.modeling_glm4v",
)
LIMIT = 1500  # seconds; the whole demo takes a busy machine six minutes, and pytest itself ends after 1800
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["snakemake.cli", "snakemake.report", "snakemake.workflow", "workflow_scripts.demo"]
)


def run(
    module: str, *arguments: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` gives of `python -m MODULE ARGUMENT…` in `folder`, its outputs as text.

    Raises subprocess.TimeoutExpired after LIMIT seconds.
    """
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, name) for name in ("stdout", "stderr")]
        process = _context.Process(target=_become, args=(module, arguments, folder, environment, outputs))
        process.start()
        process.join(LIMIT)
        in_time = process.exitcode is not None
        process.kill()  # what has ended is not touched
        process.join()
        said = [path.read_text(encoding="utf-8") for path in outputs]
    if not in_time:
        print(*said, sep="\n")  # pytest shows it, but not what an exception holds
        raise subprocess.TimeoutExpired([module, *arguments], LIMIT)
    return subprocess.CompletedProcess([module, *arguments], process.exitcode, *said)


def start(module: str, *arguments: str, folder: Path, output: Path) -> multiprocessing.process.BaseProcess:
    """Start `python -m MODULE ARGUMENT…` in `folder`, both outputs in a file."""
    place = (module, arguments, folder, dict(os.environ), [output, output])
    return copied(_become, *place)


def copied(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start `target` in a copy of this process, which has imported more; with threads of OpenMP's it would wait forever."""
    copies = multiprocessing.get_context("fork") if os.environ.get("OMP_NUM_THREADS") == "1" else _context
    process = copies.Process(target=target, args=arguments)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, which do not matter here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


@contextmanager
def served(address: Path) -> Iterator[None]:
    """Run what workflow/preloaded.py asks for at `address`, in copies of a process with the libraries of a training."""
    for name in HEAVY:  # this process needs them, too
        importlib.import_module(name)
    process = copied(_serve, str(address))
    try:
        while not address.exists():
            assert process.is_alive()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.join()


def _serve(address: str) -> NoReturn:
    warnings.simplefilter("ignore")
    for name in HEAVY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        os.rename(f"{address}.new", address)
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> NoReturn:
    """Run what is asked for in a copy of this process and tell its status."""
    from huggingface_hub import constants

    _, outputs, _, _ = socket.recv_fds(caller, 1, 2)
    with caller.makefile("rw") as stream:
        arguments, folder, environment = json.loads(stream.readline())
        if copy := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) & 255, file=stream, flush=True)
            os._exit(0)
    become(outputs, folder, environment)
    constants.HF_HUB_OFFLINE = environment.get("HF_HUB_OFFLINE") == "1"  # read when it was imported
    _, module, *sys.argv[1:] = arguments
    sys.modules.pop(module, None)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take down what the libraries have made takes seconds


def _become(
    module: str, arguments: list[str], folder: Path, environment: dict[str, str], outputs: list[Path]
) -> None:
    become([os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in outputs], folder, environment)
    sys.argv[1:] = arguments
    if module != "snakemake":
        sys.modules.pop(module, None)  # a second time, which runpy would warn of
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without


def become(outputs: list[int], folder: Path, environment: dict[str, str]) -> None:
    """Make of a copy of pytest's process, or of another one, what a new Python is there, with these files as outputs."""
    atexit._clear()  # or its exit removes temporary folders of the process that it is a copy of, as W&B's
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    logging.getLogger().handlers.clear()
    warnings.simplefilter("ignore")  # as Python does, where pytest makes errors of them
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
