"""On PYTHONPATH, makes a training slow enough for a test to hit it, and lost machines known for it after seconds."""

import os
import signal
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

STEP = float(os.environ.get("SLOW_STEP", 0))  # seconds
SAVE = float(os.environ.get("SLOW_SAVE", 0))
SLOWEST = os.environ.get("SLOWEST", "")  # a dataset whose first job takes five times as long for a step
FAILING = os.environ.get("FAILING_RANK", "none")  # the process that fails after its third step
HANGING = os.environ.get("HANGING_RANK", "none")  # one that is deaf to all but SIGKILL from then on
OLD = os.environ.get("OLD_RANK", "none")  # a process whose environment is another one


def checkpoints(module: ModuleType) -> None:
    seal = module.seal

    def slowly(folder) -> None:
        time.sleep(SAVE)
        seal(folder)

    module.seal = slowly


def progress(module: ModuleType) -> None:
    ends = module.Progress.on_step_end

    def slowly(self, args, state, control, **kwargs) -> None:
        folder = self.clock.parent
        done = folder.parent / f"{folder.name}.steps"  # lasts, with a line for each step that was computed
        with done.open("a") as file:
            print(os.environ.get("SLURM_JOB_ID"), state.global_step, file=file)
        if os.environ.get("RANK") == FAILING and state.global_step >= 3:
            Path("failed").write_text(str(time.time()))
            raise ZeroDivisionError(f"of process {FAILING}")
        if os.environ.get("RANK") == HANGING and state.global_step >= 3:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(3600)
        first = SLOWEST in sys.argv and len({line.split()[0] for line in done.open()}) == 1
        time.sleep(5 * STEP if first else STEP)
        ends(self, args, state, control, **kwargs)

    module.Progress.on_step_end = slowly


def locks(module: ModuleType) -> None:
    module.BEAT, module.SILENCE = 2.0, 15.0


def environment(module: ModuleType) -> None:
    if os.environ.get("RANK") == OLD:
        module.libraries = lambda: {"transformers": "4.0"}


CHANGES = {
    "workflow_scripts.training.checkpoints": checkpoints,
    "workflow_scripts.training.progress": progress,
    "workflow_scripts.base.locks": locks,
    "workflow_scripts.base.environment": environment,
}


class Changed:
    """Finds the modules of CHANGES, and changes them once they are loaded."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in CHANGES:
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def changed(module: ModuleType) -> None:
            load(module)
            CHANGES[name](module)

        spec.loader.exec_module = changed
        return spec


if STEP or SAVE:
    sys.meta_path.insert(0, Changed)
