"""A SLURM cluster of two nodes with simulated GPUs, on the loopback of this machine.

`python tests/slurm/cluster.py COMMAND …` runs a command in such a cluster. It takes root and Debian's packages,
which are installed where they are missing. A machine that belongs to a real cluster is left alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = (
    "slurmctld", "slurmd", "slurmdbd", "slurm-client", "munge",
    "mariadb-server-core", "mariadb-client-core",  # the latter for its my_print_defaults
)  # fmt: skip
URGENT = "urgent"  # a partition
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "sbatch", "srun", "squeue", "scontrol", "mariadbd")
MARK = "# Written by tests/slurm/cluster.py for the time of a test."

# The plugin strips SLURM_CONF from a job's environment: `srun` in there finds no other place.
CONFIGURATION = Path("/etc/slurm")

SLURM_CONF = """\
{mark}
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
# A job that goes back into the queue waits there for so many seconds.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Without a database the controller itself must remember the jobs that have ended.
AccountingStorageType=accounting_storage/none
MinJobAge=3600
# A job above its memory is killed, as cgroups do on a real cluster.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
KillWait=5
ReturnToService=2
# A node that is silent for so many seconds is down.
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
# The nodes claim more than this machine has, so that the profile's real requests fit.
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=64 RealMemory=1000000 Gres=gpu:{gpus}
"""


class Unavailable(Exception):
    """No such cluster can be started here; the message says why."""


@dataclass
class Cluster:
    """The cluster that runs, and what can befall it."""

    folder: Path
    stack: ExitStack
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str, command: str, end: str = "TERM") -> None:
        """Start a daemon in the foreground; it ends with the block, and also when this process is killed."""
        log = self.stack.enter_context((self.folder / f"{name}.log").open("ab"))
        # In a session of its own: Ctrl-C at the terminal must not stop the node before its jobs.
        daemon = subprocess.Popen(
            ["setpriv", f"--pdeathsig={end}", *command.split()],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.stack.callback(daemon.wait, timeout=60)
        self.stack.callback(daemon.send_signal, signal.Signals[f"SIG{end}"])
        self.daemons[name] = daemon

    def start_controller(self) -> None:
        self.start("slurmctld", "slurmctld -D")

    def stop(self, name: str) -> None:
        self.daemons[name].terminate()
        self.daemons[name].wait(timeout=60)

    def stop_controller(self) -> None:
        self.stop("slurmctld")

    def start_node(self, node: str) -> None:
        """A node sees its own processes alone, as a machine does; they end with it."""
        apart = "unshare --pid --fork --mount-proc --kill-child=KILL"
        self.start(node, f"{apart} slurmd -D -N {node}", end="KILL")  # unshare is deaf to other signals

    def lose(self, node: str) -> None:
        """As if its power went: every process ends at once, and nobody says goodbye."""
        self.daemons[node].kill()
        self.daemons[node].wait(timeout=60)

    def wait_for_nodes(self) -> None:
        """Until all are up and idle."""
        wait(
            self.folder,
            "the nodes",
            lambda: answer("sinfo", "--noheader", "--format=%T").split() == ["idle"],
        )

    def _reconfigure(self) -> None:
        answer("scontrol", "reconfigure")

    def _restart(self) -> None:
        self.stop_controller()
        self.start_controller()
        wait(self.folder, "slurmctld", lambda: "UP" in answer("scontrol", "ping"))
        self._reconfigure()  # the nodes, too

    @contextmanager
    def configured(self, restart: bool = False, **settings: str) -> Iterator[None]:
        """Change settings of the running cluster for the time of the block; some take a `restart` of the controller."""
        file = CONFIGURATION / "slurm.conf"
        before = file.read_text(encoding="utf-8")
        kept = [line for line in before.splitlines() if line.partition("=")[0] not in settings]
        changed = [f"{key}={value}" for key, value in settings.items()]
        apply = self._restart if restart else self._reconfigure
        try:
            # Nodes and partitions come last, and keys of a node's line are its own.
            file.write_text("\n".join([kept[0], *changed, *kept[1:]]) + "\n", encoding="utf-8")
            apply()
            yield
        finally:
            file.write_text(before, encoding="utf-8")
            apply()


@contextmanager
def cluster(partitions: list[str], gpus: int = 4) -> Iterator[Cluster]:
    """Run the cluster for the time of the block; jobs of the partition URGENT put those of others back into the queue."""
    _check_machine()
    _install()
    with ExitStack() as stack:
        # `timeout` and CI end a test by SIGTERM, which would leave the cluster behind.
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _interrupt))
        # Not below pytest's folder, which the munge daemon refuses: only its owner may enter that.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        _configure(stack, folder, partitions, gpus)
        running = Cluster(folder, stack)
        munge = f"munged --foreground --key-file={folder}/munge.key --socket={folder}/munge.socket"
        running.start("munged", f"{munge} --pid-file={folder}/munge.pid --seed-file={folder}/munge.seed")
        wait(folder, "munged", lambda: (folder / "munge.socket").exists())
        running.start_controller()
        for node in nodes():
            running.start_node(node)
        running.wait_for_nodes()
        stack.callback(_end_jobs)
        yield running


def jobs() -> list[dict[str, str]]:
    """Every job so far, as `scontrol show job` describes it."""
    lines = answer("scontrol", "--oneliner", "show", "job").splitlines()
    described = (line for line in lines if line.startswith("JobId="))  # and not "No jobs in the system"
    return [
        {name: value for name, _, value in (item.partition("=") for item in line.split() if "=" in item)}
        for line in described
    ]


def nodes() -> list[str]:
    """The first is this machine's name, which processes that are to meet there can look up."""
    host = socket.gethostname().partition(".")[0]
    return [host, f"{host}2"]


def _end_jobs() -> None:
    """Cancel what still runs, and wait: nothing ends a job's processes once the node's daemon is gone."""
    answer("scancel", "--user=root")
    deadline = time.monotonic() + 60
    while answer("squeue", "--noheader") and time.monotonic() < deadline:
        time.sleep(0.5)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise Unavailable("a test cluster needs root")
    for file in (CONFIGURATION / "slurm.conf", CONFIGURATION / "gres.conf"):
        if file.exists() and not file.read_text(encoding="utf-8").startswith(MARK):
            raise Unavailable(f"{file} belongs to a real cluster, which is left alone")
    if (CONFIGURATION / "slurm.conf").exists() and "UP" in answer("scontrol", "ping"):
        raise Unavailable("another test cluster is running on this machine")


def _install() -> None:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Unavailable(f"{', '.join(missing)} not found, and no apt-get to install {', '.join(PACKAGES)}")
    for action in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            ["apt-get", *action], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(f"apt-get {action[0]} failed: {done.stderr.strip()[-300:]}")


def _configure(stack: ExitStack, folder: Path, partitions: list[str], gpus: int) -> None:
    (folder / "state").mkdir()
    for node in nodes():
        (folder / "spool" / node).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    devices = [folder / f"gpu{index}" for index in range(gpus)]
    for device in devices:
        try:
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # a character device, as /dev/null is
        except PermissionError as error:
            raise Unavailable(f"no devices can be made here to stand for GPUs ({error})") from error

    names = nodes()
    controller, *ports = free_ports(1 + len(names))
    text = SLURM_CONF.format(mark=MARK, host=names[0], folder=folder, gpus=gpus, controller_port=controller)
    for node, port in zip(names, ports, strict=True):
        text += f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port}\n"
    members = ",".join(names)
    text += "".join(
        f"PartitionName={name} Nodes={members} MaxTime=INFINITE State=UP PriorityTier={1 + (name == URGENT)}\n"
        for name in [*partitions, URGENT]
    )
    CONFIGURATION.mkdir(exist_ok=True)
    for name, content in (
        ("slurm.conf", text),
        (
            "gres.conf",
            f"{MARK}\n"
            + "".join(f"NodeName={members} Name=gpu File={device} Flags=no_gpu_env\n" for device in devices),
        ),
    ):
        (CONFIGURATION / name).write_text(content, encoding="utf-8")
        stack.callback((CONFIGURATION / name).unlink)


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(folder: Path, name: str, ready) -> None:
    deadline = time.monotonic() + 180
    while not ready():
        if time.monotonic() > deadline:
            logs = "".join(
                f"\n{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(folder.glob("*.log"))
            )
            raise RuntimeError(f"{name} did not come up{logs}")
        time.sleep(0.2)


def answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    with cluster(partitions=["cpu", "gpu"]):
        sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
