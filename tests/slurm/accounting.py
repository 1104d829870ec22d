"""Accounts of the test cluster's jobs in a database of their own, as `sacct` asks for them on real clusters."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import CONFIGURATION, MARK, Cluster, Unavailable, answer, free_ports, wait

SLURMDBD_CONF = """\
{mark}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
"""


@contextmanager
def accounts(running: Cluster) -> Iterator[None]:
    """Let the cluster keep accounts for the time of the block."""
    file = CONFIGURATION / "slurmdbd.conf"
    if file.exists() and not file.read_text(encoding="utf-8").startswith(MARK):
        raise Unavailable(f"{file} belongs to a real cluster, which is left alone")
    port, database_port = free_ports(2)
    text = SLURMDBD_CONF.format(mark=MARK, folder=running.folder, port=port, database_port=database_port)
    file.touch(0o600)  # slurmdbd takes no other
    try:
        file.write_text(text, encoding="utf-8")
        _start_database(running, database_port)
        running.start("slurmdbd", "slurmdbd -D")
        wait(running.folder, "slurmdbd", lambda: " started" in (running.folder / "slurmdbd.log").read_text())
        with running.configured(
            restart=True,
            AccountingStorageType="accounting_storage/slurmdbd",
            AccountingStorageHost="localhost",
            AccountingStoragePort=str(port),
            AccountingStoragePass=f"{running.folder}/munge.socket",  # in accounting, AuthInfo is not asked
            AccountingStorageTRES="gres/gpu",
        ):
            known = ("sacctmgr", "--noheader", "list", "cluster")
            wait(running.folder, "the cluster's account", lambda: "test" in answer(*known))
            yield
        for name in ("slurmdbd", "mariadbd"):
            running.stop(name)
    finally:
        file.unlink()


def _start_database(running: Cluster, port: int) -> None:
    common = ["--no-defaults", "--user=root", f"--datadir={running.folder}/accounts"]
    subprocess.run(
        ["mariadb-install-db", *common, "--skip-test-db", "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
    )
    listening = f"--bind-address=127.0.0.1 --port={port} --socket={running.folder}/accounts.socket"
    running.start("mariadbd", f"mariadbd {' '.join(common)} {listening}")
    log = running.folder / "mariadbd.log"
    wait(running.folder, "mariadbd", lambda: "ready for connections" in log.read_text(encoding="utf-8"))
