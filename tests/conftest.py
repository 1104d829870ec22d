import gc
import os
import signal
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# One core for each worker; more threads would wait for each other. Subprocesses inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported

# A shell lets what it starts in the background ignore Ctrl-C, as `make test-slow` starts the tests on a cluster.
# Subprocesses inherit that, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine is no failure.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


# Begun first, so that at the end no worker is left alone with one of them.
LONG = (
    "test_chain.py", "test_engine.py", "test_guards.py", "test_validation.py", "test_resume.py", "test_tracking.py",
    "test_rules.py", "test_results.py", "test_demo.py", "test_commands.py", "test_fuzz.py", "test_architecture.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What the libraries have made stays: not to look for garbage in it saves a fifth of the time of all tests."""
    freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command("squeue", "echo 1")` puts a stand-in for one of SLURM's commands in the way."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")

    def install(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)

    for name in ("squeue", "sacct", "scontrol", "scancel", "sbatch"):
        install(name, "exit 1")  # and no real one of this machine
    return install


@pytest.fixture(scope="module", autouse=True)
def freeze_imports() -> None:
    """So does what tests of the modules before have imported, in which each training would look again."""
    freeze()


def freeze() -> None:
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or what was frozen counts as leaked


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason why tests were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in Counter(report.longrepr[2] for report in skipped).items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real annotations and sample images, which is no part of the project."""
    root = Path(__file__).resolve().parents[1]
    folder = root / os.environ.get("MEDVQA_REALDATA", "../shared/realdata")
    if not folder.is_dir():
        pytest.skip("no real data here; set MEDVQA_REALDATA to its folder, as CONTRIBUTING.md says")
    return folder


@pytest.fixture(scope="session")
def made_evaluation() -> dict[str, Any]:
    """The evaluation of made answers, with all its parts."""
    from benchmarks import pages
    from workflow_scripts.datasets import terminology
    from workflow_scripts.evaluation import analysis, protocols

    lines = pages.rows(120, 40, 10)
    said = analysis.verdicts(lines, protocols.MODULES, terminology.load())
    return {**pages.evaluation(lines, said, ["slake/0", "pathvqa/1"])}
