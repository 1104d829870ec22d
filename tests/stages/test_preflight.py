"""What preflight says of a machine, and of clusters that stand-ins for SLURM's commands describe."""

import json
import os
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import yaml

from workflow_scripts import preflight as top
from workflow_scripts.base import slurm
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration import reading
from workflow_scripts.models import shapes, sizes
from workflow_scripts.stages import preflight, preflight_disk, preflight_slurm
from workflow_scripts.stages.preflight_check import Check

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = {
    "datasets": {"slake": {"reader": "slake", "embedded": 12}},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
}


@pytest.fixture
def profile() -> dict:
    return preflight.read_profile(ROOT / "profiles/slurm")


@pytest.fixture
def cluster(command, monkeypatch):
    """Stand-ins for SLURM's commands, and no others: `cluster(squeue="echo 1; exit 1")`."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/bin")

    def install(**commands: str) -> None:
        defaults = {
            "scontrol": "printf 'AccountingStorageType = accounting_storage/none\\nMinJobAge = 300 sec\\n'",
            "sinfo": "echo 'cpu|up|1-00:00:00|2|(null)'",
            "sbatch": "exit 0",
            "srun": f'while [ "$1" != {sys.executable} ]; do shift; done; "$@"',
            "sacct": "echo accounting is off >&2; exit 1",
            "sacctmgr": "exit 1",
            "squeue": "exit 0",
        }
        for name, script in {**defaults, **commands}.items():
            command(name, script)

    install()
    return install


def found(tmp_path, profile, configuration=None) -> list[Check]:
    settings = reading.validate({**CONFIGURATION, **(configuration or {})}, where="a test")
    return list(preflight.checks(settings, Layout(tmp_path / "results"), profile))


def of(checks: list[Check], name: str) -> list[Check]:
    return [check for check in checks if check.name == name]


def test_this_machine_alone_needs_no_slurm(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "ask", None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
    arguments = ["--config", str(tmp_path / "config.yaml"), "--results", str(tmp_path / "results")]
    assert top.main([*arguments, "--profile", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    assert {line[5:18].strip() for line in lines} == {
        "version", "file system", "disk space", "scratch", "model",
    }  # fmt: skip
    assert list((tmp_path / "results").iterdir()) == []  # nothing is left behind
    with pytest.raises(UserError, match="profile nowhere"):
        top.main([*arguments, "--profile", "nowhere"])


def test_a_fitting_cluster_is_all_ok(tmp_path, profile, cluster):
    checks = found(tmp_path, profile)
    assert [check for check in checks if check.state != "ok"] == []
    assert {"slurm", "status", "partition", "request", "node"} <= {check.name for check in checks}


def test_without_a_cluster_one_line_says_so(tmp_path, profile, cluster):
    cluster(scontrol="echo 'Unable to contact slurm controller' >&2; exit 1")
    (check,) = of(found(tmp_path, profile), "slurm")
    assert check.state == "fail" and "Unable to contact slurm controller" in check.found


ON = "AccountingStorageType = accounting_storage/slurmdbd"
OFF = "AccountingStorageType = accounting_storage/none"


@pytest.mark.parametrize(
    ("accounting", "age", "sacct", "chosen", "state", "words"),
    [
        (ON, 300, "exit 0", "sacct", "ok", "accounting is on"),
        (ON, 300, "exit 0", "squeue", "warn", "set slurm-status-command: sacct"),
        (ON, 5, "exit 0", "squeue", "fail", "set slurm-status-command: sacct"),
        (ON, 5, "exit 0", "sacct", "ok", "accounting is on"),
        (ON, 300, "echo no database >&2; exit 1", "sacct", "fail", "set slurm-status-command: squeue"),
        (OFF, 300, "exit 1", "sacct", "fail", "set slurm-status-command: squeue"),
        (OFF, 300, "exit 1", "squeue", "ok", "squeue remembers ended jobs for 300 s"),
        (OFF, 5, "exit 1", "squeue", "warn", "MinJobAge=300"),
        (OFF, 120, "exit 1", "squeue", "warn", "MinJobAge=300"),
    ],
)
def test_the_command_that_tells_how_jobs_ended(
    tmp_path, profile, cluster, accounting, age, sacct, chosen, state, words
):
    cluster(scontrol=f"printf '{accounting}\\nMinJobAge = {age} sec\\n'", sacct=sacct)
    (check,) = of(found(tmp_path, {**profile, "slurm-status-command": chosen}), "status")
    assert check.state == state and words in str(check)


def by_stage(checks):
    """The request of each stage."""
    requests = of(checks, "request")
    return {stage: check for check in requests for stage in check.found.partition(":")[0].split(", ")}


def test_what_sbatch_refuses_fails_with_its_words(tmp_path, profile, cluster):
    cluster(sbatch='[[ "$*" == *gpus* ]] && { echo "Invalid account or qos" >&2; exit 1; }; exit 0')
    states = by_stage(found(tmp_path, profile))
    refused = {stage for stage, check in states.items() if check.state == "fail"}
    assert refused == {"sft", "preferences", "dpo", "ask"}
    assert "sacctmgr show assoc" in str(states["sft"]) and "Invalid account or qos" in str(states["sft"])


def test_times_above_those_of_the_partition(tmp_path, profile, cluster):
    cluster(sinfo="echo 'gpu|up|30:00|2|gpu:4'")
    sft = by_stage(found(tmp_path, profile))["sft"]
    assert sft.state == "warn" and "min(" in sft.remedy  # 20 minutes, and 40 after an end by time
    cluster(sinfo="echo 'gpu|up|15:00|2|gpu:4'")
    sft = by_stage(found(tmp_path, profile))["sft"]
    assert sft.state == "fail" and "at most 15:00" in sft.found


def test_a_partition_that_is_not_there(tmp_path, profile, cluster):
    cluster(sinfo='[[ "$*" == *--partition* ]] || printf "batch\\nlong\\n"')
    checks = of(found(tmp_path, profile), "partition")
    assert [check.state for check in checks] == ["fail", "fail"]
    assert "give one of: batch long" in str(checks[0])


def test_the_requests_are_those_of_the_configuration_and_the_profile(profile):
    profile["default-resources"] |= {"slurm_account": "lab", "qos": "long"}
    profile["set-resources"]["sft"] = {**profile["set-resources"]["sft"], "gpu_model": "a100"}
    profile["set-resources"]["dpo"] = {"mem_mb_per_cpu": "5000 * attempt", "runtime": "3h"}
    several = {
        "datasets": {name: {"reader": name, "embedded": 12} for name in ("slake", "rad")},
        "runs": [{}, {"dataset": "slake", "sft": {"epochs": 100}}],
        "sft": {"gpus": 4},
    }
    settings = reading.validate({**CONFIGURATION, **several}, where="a test")
    first, last = (
        preflight_slurm.requests(settings, Layout(Path("none")), profile, attempt) for attempt in (1, 2)
    )
    (sft,) = [request for request in first if request.stages == "sft"]  # of all runs the largest
    assert sft.flags == (
        "--account=lab", "--qos=long", "--nodes=1", "--gpus=a100:4", "--cpus-per-gpu=8", "--mem=96000",
    )  # fmt: skip
    (more,) = [request for request in last if request.stages == "sft"]
    assert (more.minutes, more.flags[-1]) == (2 * sft.minutes, "--mem=192000")
    (dpo,) = [request for request in last if request.stages == "dpo"]
    assert (dpo.minutes, dpo.flags[-1]) == (180, "--mem-per-cpu=10000")


@pytest.mark.parametrize(
    ("limit", "minutes"), [("infinite", None), ("1-12:00:00", 2160), ("10:00:00", 600), ("30:00", 30)]
)
def test_time_limits(limit, minutes):
    assert preflight_slurm.limit_minutes(limit) == minutes


def test_a_node_that_sees_another_disk(tmp_path, profile, cluster):
    told = {
        "host": "n7",
        "seen": False,
        "waited": 20,
        "time": 0,
        "failed": {},
        "tracker": "",
        "scratch": None,
    }
    cluster(srun=f"echo '{json.dumps({**told, 'failed': {'https://hub': 'down'}})}'")
    checks = of(found(tmp_path, profile), "node")
    assert [check.state for check in checks] == ["fail", "warn", "fail"] * 2
    assert "cpu: n7 does not see" in checks[0].found and "--until download" in checks[2].remedy
    cluster(srun="echo 'Unable to allocate resources' >&2; exit 1")
    checks = of(found(tmp_path, profile), "node")
    assert [check.state for check in checks] == ["warn", "warn"]
    assert "gpu: no look" in checks[1].found and "Unable to allocate resources" in checks[1].found


def test_each_partition_is_looked_at_from_one_of_its_nodes(tmp_path, profile, cluster):
    profile["set-resources"]["dpo"] = {
        "slurm_partition": "large",
        "constraint": "a100",
        "slurm_account": "lab",
    }
    calls = tmp_path / "calls"
    command = f'echo "$*" >> {calls}; while [ "$1" != {sys.executable} ]; do shift; done; "$@"'
    cluster(srun=command)
    lines = [check.found for check in of(found(tmp_path, profile), "node")]
    assert [line.partition(": ")[0] for line in lines] == ["cpu", "gpu", "large"]
    assert all(" sees " in line for line in lines)
    told = calls.read_text(encoding="utf-8")
    assert "--partition=large --account=lab --constraint=a100" in told and told.count("--time=2") == 3


def asking(tmp_path, monkeypatch, profile, **configuration) -> list[Check]:
    """What is said where a model comes from a hub that nobody runs."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    models = {"4.1v": {"base": {"repository": "lab/model"}}}
    return found(tmp_path, profile, {"models": models, **configuration})


def test_the_hub_is_asked_where_downloads_run(tmp_path, profile, cluster, monkeypatch):
    profile["set-resources"]["download_model"] = {"slurm_partition": "transfer"}
    (refused,) = [
        check for check in of(asking(tmp_path, monkeypatch, profile), "node") if check.state == "fail"
    ]
    assert refused.found.startswith("transfer: ") and "does not reach http://127.0.0.1:9" in refused.found

    here = asking(tmp_path, monkeypatch, profile, cluster={"download_here": True})
    assert [check.state for check in of(here, "model")] == ["fail"]  # asked from here
    assert [check.state for check in of(here, "node")] == ["ok", "ok"]
    assert not any("transfer" in check.found for check in here)


def test_scratch_is_looked_at_where_jobs_use_it(tmp_path, profile, cluster, monkeypatch):
    def scratch(named: str) -> Check:
        checks = of(found(tmp_path, profile, {"cluster": {"scratch": named}}), "scratch")
        (of_node,) = [check for check in checks if check.found.startswith("gpu: ")]
        return of_node

    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    there = scratch("$NODE_DISK")
    assert there.state == "ok" and f"{tmp_path}/disk: which is there, " in there.found
    assert there.found.endswith(" GB free")
    to_be_made = scratch("$NODE_DISK/own")
    assert to_be_made.state == "ok" and "which jobs will make, " in to_be_made.found
    assert not (tmp_path / "disk/own").exists()
    unset = scratch("$NO_SUCH_DISK")
    assert unset.state == "warn" and "$NO_SUCH_DISK: not set" in unset.found
    (tmp_path / "file").touch()
    no_folder = scratch(str(tmp_path / "file"))
    assert no_folder.state == "warn" and "read where they lie" in str(no_folder)


class WantsToken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_) -> None: ...


def test_a_tracker_is_asked_from_the_nodes_too(tmp_path, profile, cluster, monkeypatch):
    calls = tmp_path / "calls"
    cluster(srun=f'echo "$*" >> {calls}; while [ "$1" != {sys.executable} ]; do shift; done; "$@"')
    tracking = {"tracking": ["mlflow"]}
    with ThreadingHTTPServer(("127.0.0.1", 0), WantsToken) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}")
        reached = of(found(tmp_path, profile, tracking), "tracker")
        server.shutdown()
    assert [check.found.partition(": ")[0] for check in reached[1:]] == ["cpu", "gpu"]
    assert [check.state for check in reached] == ["ok"] * 3
    assert not any("secret" in str(check) for check in reached) and "secret" not in calls.read_text()
    refused = of(found(tmp_path, profile, tracking), "tracker")
    assert [check.state for check in refused] == ["warn"] * 3
    assert "gpu: " in refused[2].found and "trainings go on" in str(refused[2])


def test_models(tmp_path, monkeypatch):
    def model(**checkpoint) -> Check:
        checks = found(tmp_path, None, {"models": {"4.1v": {"base": checkpoint}}})
        return of(checks, "model")[0]

    assert model(path=str(tmp_path)).state == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model(repository="lab/model").state == "fail"
    (tmp_path / "hub/models--lab--model").mkdir(parents=True)
    assert model(repository="lab/model").state == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    refused = model(repository="lab/model")
    assert refused.state == "fail" and "refused" in refused.found


@pytest.fixture
def space(tmp_path, monkeypatch):
    """`space(150, models)`: the check of a disk with so many GB free, with no other one for the hub's cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def check(free: float, models: dict, profile=None, **configuration) -> Check:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 1e9))
        checks = found(tmp_path, profile, {"models": models, **configuration})
        (space,) = of(checks, "disk space")
        return space

    return check


LARGE = {"4.5v": {"base": {"repository": "lab/large"}}}
SMALL = {"4.1v": {"base": {"repository": "lab/small"}}}
FULL = {"sft": {"method": "full"}, "dpo": {"method": "full"}}
RUN = Run("slake", "4.1v", "base")


def test_what_does_not_fit_fails_with_what_is_needed_and_what_is_there(space, tmp_path):
    check = space(150, LARGE)
    assert check.state == "fail"
    assert "150 GB free, 225 GB needed: weights to fetch 215, " in check.found
    assert space(250, LARGE).state == "ok"
    twice = {"4.5v": dict.fromkeys(("base", "thinking"), LARGE["4.5v"]["base"])}
    assert "weights to fetch 215, " in space(150, twice).found
    assert space(3, {"4.5v": {"base": {"embedded": True}}}).state == "ok"
    assert space(20, {"4.5v": {"base": {"path": str(tmp_path)}}}).state == "ok"  # linked


def test_a_hub_cache_on_another_disk_needs_its_own_space(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/proc/hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=150e9))
    cache, results = of(found(tmp_path, None, {"models": LARGE}), "disk space")
    assert cache.state == "fail" and cache.found.startswith("/proc: 150 GB free, 215 GB needed")
    assert "HF_HOME" in cache.remedy
    assert results.state == "ok" and "10 GB needed" in results.found


def test_a_full_training_needs_its_checkpoints_until_it_has_ended(space, tmp_path):
    check = space(400, SMALL, **FULL)
    assert check.state == "fail"
    assert "weights to fetch 21, trained models 82, checkpoints 349, " in check.found
    layout = Layout(tmp_path / "results")
    manifest = layout.model("4.1v", "base") / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    assert "needed: trained models 82, checkpoints 349, " in space(400, SMALL, **FULL).found
    for stage in ("sft", "dpo"):
        layout.metrics(stage, RUN).parent.mkdir(parents=True)
        layout.metrics(stage, RUN).touch()
    assert space(3, SMALL, **FULL).state == "ok"


def test_what_lies_there_already_is_not_needed_again(space, tmp_path):
    for folder in ("hub/models--lab--small/blobs", f"results/checkpoints/sft/{RUN}"):
        (tmp_path / folder).mkdir(parents=True)
        with (tmp_path / folder / "part").open("wb") as file:
            file.truncate(10_000_000_000)
    check = space(400, SMALL, sft={"method": "full"})
    assert "weights to fetch 11, trained models 42, checkpoints 339, " in check.found


def test_as_many_runs_have_checkpoints_as_train_at_once(space, profile, cluster):
    datasets = {name: {"reader": name, "embedded": 12} for name in ("slake", "rad")}
    several = {"datasets": datasets, **FULL}
    check = space(900, SMALL, profile, **several)
    assert "checkpoints 698" in check.found and check.state == "ok"
    assert [space(free, SMALL, profile, **several).state for free in (600, 530)] == ["warn", "fail"]
    assert "checkpoints 349" in space(400, SMALL, {**profile, "jobs": 1}, **several).found


@pytest.mark.parametrize("version", ["4.1v", "4.5v"])
def test_adapters_are_as_large_as_those_of_the_models_shapes(version):
    shape = shapes.published(version)
    assert preflight_disk.adapter(sizes.published(version), rank=64) == shape.adapter(64)
    assert shape.adapter(64, vision=True) <= preflight_disk.WITH_VISION * shape.adapter(64)


def test_a_tracker_that_is_down_is_a_warning(tmp_path):
    checks = found(tmp_path, None, {"tracking": ["mlflow"], "tracking_uri": "http://127.0.0.1:9"})
    (check,) = of(checks, "tracker")
    assert check.state == "warn" and "trainings go on" in str(check)
