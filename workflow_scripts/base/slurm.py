"""What SLURM's own commands tell; nothing here waits for long, and a cluster that does not answer is no error."""

import re
import subprocess
from dataclasses import dataclass

PATIENCE = 30.0  # seconds for one answer
# While no job ends, Snakemake's plugin (2.8) waits ever longer between two looks, up to 180 s. By squeue, a job that
# ends in between must be remembered until the next look comes; one that is not is waited for without end.
REMEMBER_SECONDS = 240


@dataclass(frozen=True)
class Told:
    """What a command said; `failed` says in one line why there is no answer."""

    text: str = ""
    failed: str = ""


def ask(*command: str, patience: float = PATIENCE) -> Told:
    """Run a command of SLURM's."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except FileNotFoundError:
        return Told(failed=f"{command[0]}: not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Told(failed=f"{command[0]}: {error}")
    if done.returncode:
        said = " ".join(done.stderr.split())[:200]
        return Told(failed=f"{command[0]}: {said or f'status {done.returncode}'}")
    return Told(done.stdout)


def state_of(job: str) -> str:
    """The state of a job, such as TIMEOUT, by the controller or, once that has forgotten it, the accounting; else ""."""
    found = re.search(r"\bJobState=(\w+)", ask("scontrol", "--oneliner", "show", "job", job).text)
    if found:
        return found[1]
    recorded = ask("sacct", "-X", "--noheader", "--parsable2", "--format=State", f"--jobs={job}")
    words = recorded.text.split()  # "CANCELLED by 1000"
    return words[0] if words else ""


def configuration() -> dict[str, str]:
    """`scontrol show config`, and empty where no cluster answers."""
    lines = ask("scontrol", "show", "config").text.splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def has_accounting(settings: dict[str, str]) -> bool:
    """Whether sacct has a database to ask, by `configuration`."""
    return not settings.get("AccountingStorageType", "none").endswith("none")


def seconds(value: str) -> int | None:
    """The first number of a value of `configuration` such as "300 sec"."""
    found = re.match(r"\d+", value)
    return int(found[0]) if found else None
