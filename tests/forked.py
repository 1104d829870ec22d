"""Commands in copies of a process that has imported their libraries, for importing takes most of their time."""

import atexit
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["snakemake.cli", "snakemake.report", "snakemake.workflow", "workflow_scripts.demo"]
)


def run(
    module: str, *arguments: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` gives of `python -m MODULE ARGUMENT…` in `folder`, its outputs as text."""
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, name) for name in ("stdout", "stderr")]
        process = _context.Process(target=_become, args=(module, arguments, folder, environment, outputs))
        process.start()
        process.join()
        said = [path.read_text(encoding="utf-8") for path in outputs]
    return subprocess.CompletedProcess([module, *arguments], process.exitcode, *said)


def start(module: str, *arguments: str, folder: Path, output: Path) -> multiprocessing.process.BaseProcess:
    """Start `python -m MODULE ARGUMENT…` in `folder`, both outputs in a file.

    It is a copy of this process, which has imported more; but where OpenMP has threads, a copy waits for them forever.
    """
    place = (module, arguments, folder, dict(os.environ), [output, output])
    context = multiprocessing.get_context("fork") if os.environ.get("OMP_NUM_THREADS") == "1" else _context
    process = context.Process(target=_become, args=place)
    process.start()
    return process


def _become(
    module: str, arguments: list[str], folder: Path, environment: dict[str, str], outputs: list[Path]
) -> None:
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)  # in the place of pytest's
    logging.getLogger().handlers.clear()
    warnings.simplefilter("ignore")  # as Python does, where pytest makes errors of them
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    if module != "snakemake":
        sys.modules.pop(module, None)  # a second time, which runpy would warn of
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without
