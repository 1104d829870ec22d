"""What a profile of Snakemake's asks of a SLURM cluster, shown to that cluster without queueing anything long."""

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workflow_scripts.base import credentials, slurm
from workflow_scripts.base.paths import STAGES, Layout
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.settings import Config, Training
from workflow_scripts.stages.preflight_check import Check
from workflow_scripts.stages.preflight_disk import GB
from workflow_scripts.tracking.mlflow_store import tracking_uri
from workflow_scripts.training.estimation.requests import LACKED, SECTIONS, Kind, Requests

QUEUED_SECONDS = 60  # that the job which looks from a node may wait for one
SKEW_SECONDS = 60.0

# Runs on a compute node: whether it sees the file, how late, what time it is there, and whether the hub, the tracker and
# scratch can be had, whose folder the jobs make themselves.
PROBE = """
import json, os, shutil, socket, sys, tempfile, time, urllib.error, urllib.request

def unreachable(url):
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403) else f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""

asked = json.loads(sys.argv[1])
folder, scratch = asked["folder"], None
started = time.monotonic()
while not os.path.exists(os.path.join(folder, "here")) and time.monotonic() < started + 20:
    os.listdir(os.path.dirname(folder))
    time.sleep(0.1)
seen = os.path.exists(os.path.join(folder, "here"))
waited = time.monotonic() - started
failed = {url: why for url in asked["urls"] if (why := unreachable(url))}
tracker = unreachable(asked["tracker"].rstrip("/") + "/health") if asked["tracker"] else ""
if asked["scratch"]:
    scratch = {"folder": os.path.expandvars(asked["scratch"]), "there": False, "free": 0, "failed": ""}
    if "$" in scratch["folder"]:
        scratch["failed"] = "not set"
    else:
        place = os.path.abspath(scratch["folder"])
        scratch["there"] = os.path.exists(place)
        while not os.path.exists(place):
            place = os.path.dirname(place)
        try:
            tempfile.TemporaryFile(dir=place).close()
            scratch["free"] = shutil.disk_usage(place).free
        except OSError as error:
            scratch["failed"] = error.strerror
print(json.dumps({
    "host": socket.gethostname(), "seen": seen, "waited": waited, "time": time.time(), "failed": failed,
    "tracker": tracker, "scratch": scratch,
}))
"""


@dataclass(frozen=True)
class SlurmRequest:
    """What a stage asks of the cluster in one of its attempts: sbatch's flags."""

    stages: str
    partition: str
    minutes: int | None
    flags: tuple[str, ...]


def checks(settings: Config, layout: Layout, profile: dict[str, Any], urls: list[str]) -> Iterator[Check]:
    """All checks; `urls` are what the downloads of models must reach."""
    configuration = slurm.configuration()
    if not configuration:
        failed = slurm.ask(*slurm.CONFIGURATION).failed
        yield Check(
            "slurm", "fail", failed or "scontrol told nothing", "go to a login node, or load SLURM's module"
        )
        return
    yield Check(
        "slurm", "ok", f"{configuration.get('SLURM_VERSION', '?')}, {configuration.get('ClusterName', '?')}"
    )
    yield status_command(profile, configuration)
    first = requests(settings, layout, profile, attempt=1)
    last = requests(settings, layout, profile, attempt=2 if profile.get("retries") else 1)
    limits = {}
    for partition in dict.fromkeys(request.partition for request in first):
        check, limits[partition] = _partition(partition)
        yield check
    for one, more in zip(first, last, strict=True):
        if limits[one.partition] is not None:
            yield _request(one, more, limits[one.partition] or "")
    yield from _from_nodes(settings, layout, profile, urls)


def status_command(profile: dict[str, Any], configuration: dict[str, str]) -> Check:
    """Whether Snakemake will hear how its jobs ended."""
    name, key = "status", "slurm-status-command"
    chosen = profile.get(key)
    if slurm.has_accounting(configuration) and not (refused := slurm.ask("sacct", "-X", "--noheader").failed):
        if chosen == "sacct":
            return Check(name, "ok", "sacct: accounting is on")
        remembered = _remembered(configuration)
        if remembered:
            return Check(name, "warn", f"{remembered}, and accounting is on", f"set {key}: sacct")
        return Check(name, "fail", _forgotten(configuration), f"set {key}: sacct, which remembers them")
    refused = refused if slurm.has_accounting(configuration) else "accounting is off"
    if chosen != "squeue":
        return Check(name, "fail", f"sacct tells nothing: {refused}", f"set {key}: squeue")
    if remembered := _remembered(configuration):
        return Check(name, "ok", f"squeue: {refused}; {remembered}")
    return Check(
        name, "warn", f"{refused}, and {_forgotten(configuration)}",
        "it serves, but how a job ended is known by its own note alone; ask the administrators for MinJobAge=300",
    )  # fmt: skip


def _remembered(configuration: dict[str, str]) -> str:
    age = slurm.seconds(configuration.get("MinJobAge", "")) or 0
    return f"squeue remembers ended jobs for {age} s" if age >= slurm.REMEMBER_SECONDS else ""


def _forgotten(configuration: dict[str, str]) -> str:
    age = configuration.get("MinJobAge", "unknown")
    return f"squeue forgets ended jobs after MinJobAge = {age}, and Snakemake looks every 3 minutes"


def requests(settings: Config, layout: Layout, profile: dict[str, Any], attempt: int) -> list[SlurmRequest]:
    """The largest request of each stage of all runs, alike ones of several stages together.

    `attempt` is the first, or a second after an end for lack of memory and time.
    """
    estimated = Requests(settings, layout)
    largest: dict[tuple[str, ...], tuple[int, int | None, str]] = {}
    for run in runs.chosen(settings):
        own = runs.settings_of(settings, run)
        for stage in _submitted(settings):
            of = None if stage in ("download", "report") else run
            estimates = {kind: f"{estimated.first(stage, of, kind)} * attempt" for kind in LACKED}
            asked = _asked(profile, stage, estimates)
            section = getattr(own, SECTIONS[stage]) if stage in SECTIONS else None
            key = (stage, str(asked.get("slurm_partition", "")), *_flags(asked, section))
            flag, megabytes = _memory(asked, attempt)
            minutes = _minutes(asked.get("runtime"), attempt)
            before = largest.get(key, (0, minutes, flag))
            longest = max(minutes or 0, before[1] or 0) or None
            largest[key] = (max(megabytes, before[0]), longest, flag)
    alike: dict[tuple[str, int | None, tuple[str, ...]], list[str]] = {}
    for (stage, partition, *flags), (megabytes, minutes, flag) in largest.items():
        memory = [f"--{flag}={megabytes}"] if megabytes else []
        alike.setdefault((partition, minutes, (*flags, *memory)), []).append(stage)
    return [SlurmRequest(", ".join(stages), *key) for key, stages in alike.items()]


def _submitted(settings: Config) -> list[str]:
    """The rules whose jobs go to the cluster."""
    rules = (*STAGES[:1], "download_model", *STAGES[1:])
    return [rule for rule in rules if not (settings.cluster.download_here and rule.startswith("download"))]


def _asked(
    profile: dict[str, Any], rule: str, estimates: Mapping[Kind, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The resources of a rule: what the profile states for it goes before estimates, and these before its defaults."""
    own = (profile.get("set-resources") or {}).get(rule, {})
    return {**profile.get("default-resources", {}), **estimates, **own}


def _flags(asked: dict[str, Any], section: Any) -> Iterator[str]:
    """What the plugin makes of a stage's resources, but for partition, time and memory."""
    for flag, key in (("account", "slurm_account"), ("qos", "qos"), ("constraint", "constraint")):
        if asked.get(key):
            yield f"--{flag}={asked[key]}"
    nodes = section.nodes if isinstance(section, Training) else 1
    yield f"--nodes={nodes}"
    if section is not None and section.gpus:
        model = f"{asked['gpu_model']}:" if asked.get("gpu_model") else ""
        yield str(f"--gres={asked['gres']}" if asked.get("gres") else f"--gpus={model}{section.gpus * nodes}")
        yield f"--cpus-per-gpu={section.threads}"


def _memory(asked: dict[str, Any], attempt: int) -> tuple[str, int]:
    """The flag that the plugin takes for memory, and its megabytes; 0 where only Snakemake understands it."""
    flag, key = ("mem-per-cpu", "mem_mb_per_cpu") if "mem_mb_per_cpu" in asked else ("mem", "mem_mb")
    return flag, _number(asked[key], attempt) or 0


def _number(value: Any, attempt: int) -> int | None:
    """A resource of the profile, which may be an expression of `attempt`; None where only Snakemake understands it."""
    try:
        return int(eval(str(value), {"__builtins__": {"min": min, "max": max}}, {"attempt": attempt}))
    except Exception:
        return None


def _minutes(value: Any, attempt: int) -> int | None:
    spelled = re.fullmatch(r"(\d+)\s*([mhd])\w*", str(value))
    if spelled:
        return int(spelled[1]) * {"m": 1, "h": 60, "d": 1440}[spelled[2]]
    return _number(value, attempt)


def _partition(name: str) -> tuple[Check, str | None]:
    """Whether the partition is there, and its time limit; None where it is not."""
    answer = slurm.ask(
        "sinfo", "--noheader", "--format=%R|%a|%l|%D|%G", *([f"--partition={name}"] if name else [])
    )
    lines = [line.split("|") for line in answer.text.split()]
    if not lines:
        known = " ".join(sorted(set(slurm.ask("sinfo", "--noheader", "--format=%R").text.split())))
        return (
            Check("partition", "fail", f"{name}: {answer.failed or 'not there'}", f"give one of: {known}"),
            None,
        )
    _, up, limit, _, _ = lines[0]
    what = ", ".join(f"{count} nodes with {gpus}" for _, _, _, count, gpus in lines)
    text = f"{lines[0][0]}: {up}, at most {limit}, {what}"
    return Check("partition", "ok" if up == "up" else "warn", text, "it takes no jobs now"), limit


def limit_minutes(limit: str) -> int | None:
    """A time limit of sinfo's, such as 1-12:00:00; None where there is none."""
    seconds = slurm.seconds_of(limit)
    return None if seconds is None else seconds // 60


def _request(first: SlurmRequest, last: SlurmRequest, limit: str) -> Check:
    """Whether sbatch would take the job of some stages in the first attempt, and in the last."""
    name, most = "request", limit_minutes(limit)
    shown = f"{first.stages}: {' '.join(first.flags)} --time={first.minutes}"
    if refused := _refused(first):
        return Check(name, "fail", f"{shown}: {refused}", _remedy(refused, first.partition))
    if most is not None and (first.minutes or 0) > most:
        return Check(name, "fail", f"{shown}: {first.partition} gives at most {limit}", "lower runtime")
    if (most is not None and (last.minutes or 0) > most) or _refused(last):
        return Check(
            name, "warn", f"{shown}; the last attempt's {' '.join(last.flags)} --time={last.minutes} is too much",
            "let the profile state what the partition gives, such as `runtime: min(300 * attempt, 600)`",
        )  # fmt: skip
    return Check(name, "ok", shown)


def _refused(request: SlurmRequest) -> str:
    """What sbatch says against a job, which it only tests; "" where it would queue it."""
    partition = [f"--partition={request.partition}"] if request.partition else []
    minutes = [f"--time={request.minutes}"] if request.minutes is not None else []
    return slurm.ask("sbatch", "--test-only", *partition, *minutes, *request.flags, "--wrap=true").failed


def _remedy(refused: str, partition: str) -> str:
    if re.search(r"account|qos", refused, re.IGNORECASE):
        return "set slurm_account and qos; `sacctmgr show assoc user=$USER format=account,qos` lists yours"
    return f"ask for less, or another partition; `sinfo --partition={partition} --format='%D %c %m %G'` lists its nodes"


def _from_nodes(
    settings: Config, layout: Layout, profile: dict[str, Any], urls: list[str]
) -> Iterator[Check]:
    """What a job of seconds sees in each partition: of the results, the clock, the hub, the tracker and scratch."""
    uri = tracking_uri(settings, layout) if "mlflow" in settings.tracking else ""
    rules: dict[str, list[str]] = {}
    for rule in _submitted(settings):
        rules.setdefault(str(_asked(profile, rule).get("slurm_partition", "")), []).append(rule)
    for partition, of_it in rules.items():
        question = {
            "urls": urls if "download_model" in of_it else [],
            "tracker": credentials.without(uri) if uri.startswith("http") else "",  # others see commands
            "scratch": settings.cluster.scratch if SECTIONS.keys() & set(of_it) else None,
        }
        flags = [f"--partition={partition}"] if partition else []
        flags += _flags(_asked(profile, of_it[0]), None)
        yield from _from_a_node(layout, partition or "default", flags, question)


def _from_a_node(
    layout: Layout, partition: str, flags: list[str], question: dict[str, Any]
) -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=layout.root) as name:
        (folder := Path(name).resolve()).joinpath("here").touch()
        answer = slurm.ask(
            "srun", "--quiet", f"--immediate={QUEUED_SECONDS}", "--ntasks=1", "--time=2", "--mem=500", *flags,
            sys.executable, "-c", PROBE, json.dumps({"folder": str(folder), **question}),
            patience=2 * QUEUED_SECONDS + 60,
        )  # fmt: skip
    now = time.time()
    try:
        told = json.loads(answer.text.splitlines()[-1])
    except (IndexError, ValueError):
        yield Check(
            "node", "warn", f"{partition}: no look from a compute node: {answer.failed or 'it said nothing'}",
            "try again when a node is free; the environment of this command must lie on a disk that all nodes share; where "
            "the partition takes no job so small or without a GPU, nothing is to be done",
        )  # fmt: skip
        return
    host = f"{partition}: {told['host']}"
    if told["seen"]:
        yield Check("node", "ok", f"{host} sees {layout.root} after {told['waited']:.1f} s")
    else:
        yield Check(
            "node", "fail", f"{host} does not see {layout.root}", "let `results` lie on a disk that all share"
        )
    if abs(skew := told["time"] - now) > SKEW_SECONDS:
        yield Check("node", "warn", f"{host}: its clock differs by {skew:.0f} s", "tell the administrators")
    for url, failed in told["failed"].items():
        yield Check(
            "node", "fail", f"{host} does not reach {url}: {failed}",
            "run `snakemake --until download download_model` on the login node first, or give these two a partition "
            "with internet",
        )  # fmt: skip
    if question["tracker"]:
        yield Check(
            "tracker", "warn" if told["tracker"] else "ok",
            f"{host}: {question['tracker']}: {told['tracker'] or 'answers'}",
            "let it listen where compute nodes reach it; trainings go on without it",
        )  # fmt: skip
    if told["scratch"]:
        yield _scratch(host, told["scratch"])


def _scratch(host: str, told: dict[str, Any]) -> Check:
    made = "is there" if told["there"] else "jobs will make"
    room = f"which {made}, {told['free'] / GB:.0f} GB free"
    return Check(
        "scratch", "ok" if told["free"] >= GB else "warn", f"{host}: {told['folder']}: {told['failed'] or room}",
        "let cluster.scratch name a folder of the nodes that you may write; without, files are read where they lie",
    )  # fmt: skip
