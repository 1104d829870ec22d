"""Commands in copies of one process that has imported the heavy libraries, for importing them takes most of a short chain.

`preloaded.py SOCKET` is that process. `preloaded.py SOCKET -m MODULE ARGUMENT…` stands in for `python -m MODULE ARGUMENT…`:
it runs the command in a copy, which has the folder, the environment and the outputs of the caller.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import traceback
from typing import NoReturn

LIBRARIES = (
    "mlflow.store.tracking.sqlalchemy_store",
    "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.auto.processing_auto",
    "transformers.models.glm4v.modeling_glm4v",
)


def ask(address: str, arguments: list[str]) -> int:
    """The status of the command, which writes to the outputs of this process."""
    wanted = json.dumps([arguments, os.getcwd(), dict(os.environ)])
    with socket.socket(socket.AF_UNIX) as server, server.makefile("rw") as stream:
        server.connect(address)
        socket.send_fds(server, [b"\n"], [1, 2])
        print(wanted, file=stream, flush=True)
        return int(stream.readline() or 1)


def serve(address: str) -> NoReturn:
    """Answer until killed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                answer(caller)
            caller.close()


def answer(caller: socket.socket) -> NoReturn:
    """Run what is asked for in a copy of this process and tell its status."""
    _, outputs, _, _ = socket.recv_fds(caller, 1, 2)
    with caller.makefile("rw") as stream:
        arguments, folder, environment = json.loads(stream.readline())
        if copy := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) & 255, file=stream, flush=True)
            os._exit(0)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _, module, *sys.argv[1:] = arguments
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


if __name__ == "__main__":
    _, address, *arguments = sys.argv
    sys.exit(ask(address, arguments) if arguments else serve(address))
