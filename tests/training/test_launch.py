"""Which processes a training starts, where, and that they end with it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workflow_scripts.base import attempts, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training import launch, memory

ROOT = Path(__file__).resolve().parents[2]
# Processes without a GPU: only the count of visible ones is feigned.
PARENT = """
import sys, torch
from pathlib import Path
torch.cuda.device_count = lambda: 2
from workflow_scripts.base import cli
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training.launch import launch_or_run
settings = Sft(**eval(sys.argv[1]))
sys.exit(cli.run(lambda arguments: launch_or_run("worker", ["--flag"], settings, Path("kept"), None), []))
"""
WORKER = """
import os, sys, time
from pathlib import Path
from workflow_scripts.base import cli

def main(arguments):
    try:
        Path("started." + os.environ["RANK"]).touch()
        time.sleep(100)
    finally:
        Path("cleaned." + os.environ["RANK"]).touch()

sys.exit(cli.run(main))
"""


# Says who it is, once all processes have met.
GREETER = """
import os, sys, torch.distributed
from pathlib import Path
torch.distributed.init_process_group("gloo")
torch.distributed.barrier()
Path("rank." + os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"] + sys.argv[1])
"""


# Runs out of memory until its budget is below LIMIT tokens; the other process waits for it.
LARGE = """
import os, sys, time
from pathlib import Path
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training import memory

settings, kept = Sft(micro_batch_tokens=100, oom_retries=1), Path("kept")
kept.mkdir(exist_ok=True)
settings = memory.within_budget(settings, kept, {})
if settings.micro_batch_tokens >= LIMIT and os.environ["RANK"] == "1":
    memory.halve(settings, kept)
    sys.exit(1)
time.sleep(100 if settings.micro_batch_tokens >= LIMIT else 0)
Path("rank." + os.environ["RANK"]).write_text(str(settings.micro_batch_tokens))
"""


def start(folder: Path, worker: str, settings: dict, **variables: str) -> subprocess.Popen:
    (folder / "worker.py").write_text(worker)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
        "PYTHONPATH": f"{ROOT}:{folder}",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, repr(settings)],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two_nodes(folder: Path, worker: str) -> list[subprocess.Popen]:
    """Two nodes of one process each, on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"gpus": 0, "nodes": 2}
    return [start(folder, worker, settings, MASTER_ADDR="127.0.0.1", MASTER_PORT=port) for _ in range(2)]


def greetings(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("rank.*")}


@pytest.mark.slow
def test_one_gpu_is_one_process_under_torchrun_where_gpus_share_the_work(tmp_path):
    """DeepSpeed wants to be told its rank, and a second visible GPU must not be used."""
    parent = start(tmp_path, GREETER, {"gpus": 1, "strategy": "zero3_offload"})
    errors = parent.communicate(timeout=600)[1]
    assert parent.returncode == 0, errors
    assert greetings(tmp_path) == {"rank.0": "1--flag"}


@pytest.mark.slow
def test_nodes_without_slurm_meet_at_the_master(tmp_path):
    parents = start_two_nodes(tmp_path, GREETER)
    errors = [parent.communicate(timeout=600)[1] for parent in parents]
    assert [parent.returncode for parent in parents] == [0, 0], errors
    assert greetings(tmp_path) == {"rank.0": "2--flag", "rank.1": "2--flag"}


# Of two processes that have met, the second fails, while the first waits for it in a barrier.
DYING = """
import os, torch.distributed
torch.distributed.init_process_group("gloo")
torch.distributed.barrier()
if os.environ["RANK"] == "1":
    raise ValueError("this is the cause")
torch.distributed.barrier()
"""


@pytest.mark.slow
def test_a_process_that_dies_ends_those_of_all_nodes_and_its_traceback_is_shown(tmp_path):
    parents = start_two_nodes(tmp_path, DYING)
    said: dict[int, str] = {}
    ended: list[float] = []

    def wait(number: int) -> None:
        said[number] = parents[number].communicate(timeout=600)[1]
        ended.append(time.monotonic())

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(parent.returncode for parent in parents)
    assert max(ended) - min(ended) < 60
    shown = [
        text for text in said.values() if "Traceback" in text and "ValueError: this is the cause" in text
    ]
    assert len(shown) == 1, said


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "0"), ({"CUDA_VISIBLE_DEVICES": "3,5"}, "3"), ({"CUDA_VISIBLE_DEVICES": ""}, "")],
)
def test_of_several_visible_gpus_one_process_sees_the_first(before, after):
    assert launch.first_gpu(before) == after


def test_a_training_on_one_gpu_runs_here_and_sees_no_other(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    seen = []

    def run() -> dict:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return {"steps": 1, "seconds": 1.0, "final_loss": 0.5}

    assert launch.launch_or_run("none", [], Sft(), Path("kept"), run) == 0
    assert seen == ["GPU-a"]


@pytest.fixture
def allocation(tmp_path) -> dict[str, str]:
    """The environment of a task in an allocation of two nodes, where `squeue` and `scontrol` name them."""
    for command, asked, told in (
        ("squeue", "--noheader --jobs=123456 --format=%N", "gpu[07-08]"),
        ("scontrol", "show hostnames gpu[07-08]", "gpu07\\ngpu08"),
    ):
        (tmp_path / command).write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && printf "{told}\\n"\n')
        (tmp_path / command).chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }


def test_in_an_allocation_srun_starts_torchrun_once_per_node(allocation, monkeypatch):
    monkeypatch.setenv("PATH", allocation["PATH"])
    command, environment = launch.launcher("workflow_scripts.sft", ["--mode", "base"], 4, 2, allocation)
    torchrun = command.index(sys.executable)
    assert command[0] == "srun" and {
        "--overlap", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--kill-on-bad-exit=1",
    } <= set(command[:torchrun])  # fmt: skip
    assert command[torchrun:] == [
        sys.executable, "-m", "workflow_scripts.training.torchrun", "--nproc-per-node=4",
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "--shutdown-timeout=180",
        "--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=workflow_scripts.sft", "--rdzv-conf=join_timeout=600",
        "--rdzv-endpoint=gpu07:23456",
        "--module", "workflow_scripts.sft", "--mode", "base",
    ]  # fmt: skip
    # What describes the step that this process is part of would limit the new one.
    assert [name for name in environment if name.startswith("SLURM_")] == ["SLURM_JOB_ID"]


def test_the_wires_of_several_nodes_are_as_the_user_says(allocation, monkeypatch):
    monkeypatch.setenv("PATH", allocation["PATH"])
    own = {"NCCL_SOCKET_IFNAME": "ib0", "NCCL_DEBUG": "INFO"}
    _, environment = launch.launcher("sft", [], 4, 2, {**allocation, **own})
    assert {name: environment[name] for name in own} == own
    _, environment = launch.launcher("sft", [], 4, 2, allocation)
    assert environment["NCCL_DEBUG"] == "WARN"
    _, environment = launch.launcher("sft", [], 4, 1, allocation)
    assert not environment.keys() & launch.WIRES.keys()  # a single node has none


def test_a_command_that_srun_has_started_on_each_node_runs_torchrun_itself(allocation, monkeypatch):
    monkeypatch.setenv("PATH", allocation["PATH"])
    allocation["SLURM_STEP_NUM_NODES"] = "2"
    command, environment = launch.launcher("sft", [], 4, 2, allocation)
    assert command[0] == sys.executable and "--rdzv-endpoint=gpu07:23456" in command
    assert environment == {**launch.WIRES, **allocation}


def test_several_nodes_without_an_allocation_of_as_many_say_what_to_do(allocation):
    with pytest.raises(UserError, match=r"nodes: 3 asked for, .* has 2; give sbatch --nodes=3"):
        launch.launcher("sft", [], 4, 3, allocation)
    with pytest.raises(UserError, match=r"nodes: 2: this is no SLURM allocation; .* MASTER_ADDR"):
        launch.launcher("sft", [], 4, 2, {})


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"gpus": 2}, "gpus: 2 asked for, 1 visible"),
        ({"gpus": 0, "strategy": "zero3"}, "strategy: zero3 is for GPUs"),
    ],
)
def test_gpus_that_are_not_there_are_an_error(monkeypatch, settings, error):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=error):
        launch.launch_or_run("none", [], Sft(**settings), Path("kept"), dict)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "status", "budgets"), [(60, 0, ["50", "50"]), (40, 1, [])])
def test_processes_that_ran_out_of_memory_start_again(tmp_path, limit, status, budgets):
    """Once, as configured: that is enough below the first limit and not below the second."""
    parent = start(tmp_path, LARGE.replace("LIMIT", str(limit)), {"gpus": 2})
    errors = parent.communicate(timeout=600)[1]
    assert parent.returncode == status, errors
    assert errors.count("starting all processes again") == 1
    assert list(greetings(tmp_path).values()) == budgets


@pytest.mark.slow
def test_a_failure_is_not_taken_for_memory(tmp_path):
    """Where a budget of before has gone, because a parameter changed."""
    memory.halve(Sft(oom_retries=1), tmp_path / "kept")
    worker = "import shutil, sys; shutil.rmtree('kept'); sys.exit(1)"
    parent = start(tmp_path, worker, {"gpus": 1, "strategy": "zero2"})
    errors = parent.communicate(timeout=600)[1]
    assert parent.returncode == 1 and "starting all processes again" not in errors


DEAF = """
import signal, time
from pathlib import Path
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
Path("started").touch()
time.sleep(12)
Path("saved").touch()
"""


@pytest.mark.slow
def test_torchrun_leaves_no_process_behind_at_further_signals(tmp_path):
    """PyTorch's waits at two of them; at one where it was ending already."""
    (tmp_path / "deaf.py").write_text(DEAF)
    (command, environment) = launch.launcher("deaf", [], 1, 1, os.environ)
    own = {**environment, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    torchrun = subprocess.Popen(command, cwd=tmp_path, env=own)
    while not (tmp_path / "started").exists():
        assert torchrun.poll() is None
        time.sleep(0.1)
    for _ in range(3):
        torchrun.send_signal(signal.SIGTERM)
        time.sleep(2)
    assert torchrun.wait(600) and (tmp_path / "saved").exists()


@pytest.mark.slow
def test_sigterm_reaches_the_processes_of_all_gpus(tmp_path):
    """And all of them write what happened into one structured log, of one attempt."""
    log = tmp_path / "logs/sft/slake_4.1v_base.log"
    parent = start(tmp_path, WORKER, {"gpus": 2}, **{attempts.LOG_VARIABLE: str(log)})
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("started.*"))) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    parent.send_signal(signal.SIGTERM)
    errors = parent.communicate(timeout=600)[1]
    assert parent.returncode == 143 and errors.endswith("error: stopped by SIGTERM\n")
    assert sorted(path.name for path in tmp_path.glob("cleaned.*")) == ["cleaned.0", "cleaned.1"]
    lines = list(files.read_jsonl(log.with_suffix(".jsonl")))
    ended = {(line["process"], line["rank"]) for line in lines if line["message"].startswith("Terminated: ")}
    assert len(ended) == 3 and sorted(rank for _, rank in ended) == [0, 0, 1], (
        "the launcher and both processes"
    )
    assert {(line["attempt"], line["run"]) for line in lines} == {(1, "slake_4.1v_base")}
