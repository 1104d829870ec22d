"""An MLflow server with a Postgres of its own, for many jobs that write at once: `make mlflow-server`.

All of it lies in one folder: the database, which listens on a socket in it alone, and the artifacts.
"""

import argparse
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError

DATABASE = "mlflow"
WAIT = 60.0  # seconds for Postgres to start


def programs() -> Path | None:
    """The folder of Postgres's programs, the newest version's; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).parent if program else None


def missing() -> str:
    """What is to be installed first; "" for nothing."""
    if programs() is None:
        return "Postgres is not installed: apt-get install postgresql"
    if find_spec("psycopg2") is None:
        return "psycopg2 is not installed: pip install psycopg2-binary"
    return ""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address, for MLflow, of a database in `folder`, which is made where there is none; it ends with the block."""
    where = programs()
    if where is None:
        raise UserError(missing())
    owner = _owner()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "database"
    if owner:
        data.mkdir(exist_ok=True)
        for path in (folder, data):
            os.chown(path, owner["user"], owner["group"])
    if not (data / "PG_VERSION").is_file():
        _run(
            [
                where / "initdb",
                "--pgdata",
                data,
                "--username",
                DATABASE,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
            ],
            owner,
        )
    with tempfile.TemporaryDirectory(prefix="medvqa-") as socket:  # a socket's path must be short
        if owner:
            os.chown(socket, owner["user"], owner["group"])
        command = [where / "postgres", "-D", data, "-k", socket, "-c", "listen_addresses="]
        with open(folder / "postgres.log", "ab") as log:
            process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, cwd="/", **owner)
        try:
            _await(where, socket, process, folder)
            made = [where / "createdb", "-h", socket, "-U", DATABASE, DATABASE]
            subprocess.run([*map(str, made)], capture_output=True, check=False)  # there is one already
            yield f"postgresql+psycopg2://{DATABASE}@/{DATABASE}?host={socket}"
        finally:
            process.terminate()
            process.wait()


def _owner() -> dict[str, Any]:
    """As whom Postgres runs, which refuses root: then as the user that its package made."""
    if os.geteuid():
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        raise UserError(
            "Postgres does not run as root, and there is no user postgres; start it as another user"
        ) from None
    return {"user": found.pw_uid, "group": found.pw_gid}


def _run(command: list[Any], owner: dict[str, Any]) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd="/", **owner)
    if done.returncode:
        raise UserError(
            f"{command[0]}: {' '.join(done.stderr.split())[:300]}; give another --folder, or mend it"
        )


def _await(where: Path, socket: str, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    end = time.monotonic() + WAIT
    while subprocess.run(
        [str(where / "pg_isready"), "-h", socket], capture_output=True, check=False
    ).returncode:
        if process.poll() is not None or time.monotonic() > end:
            raise UserError(f"Postgres does not start; {folder / 'postgres.log'} says why")
        time.sleep(0.2)


def command(address: str, folder: Path, port: int) -> list[str]:
    """What starts MLflow's server on a database."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", address, "--artifacts-destination", str((folder / "artifacts").resolve())),
        *("--workers", "2"),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("results/mlflow-server"), help="where all of it lies"
    )
    parser.add_argument("--port", type=int, default=5000, help="of the server, on this machine alone")
    options: argparse.Namespace = parser.parse_args(arguments)
    if lacking := missing():
        raise UserError(lacking)
    with postgres(options.folder.resolve()) as address:
        print(
            f"tracking_uri: http://127.0.0.1:{options.port}   # for config.yaml; Ctrl-C ends the server",
            flush=True,
        )
        return subprocess.run(command(address, options.folder, options.port), check=False).returncode


if __name__ == "__main__":
    sys.exit(cli.run(main))
