from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, Unavailable, cluster

ROOT = Path(__file__).resolve().parents[2]

# One run, small enough for a CPU.
CONFIGURATION = {
    "datasets": {"slake": {"reader": "slake", "embedded": 12}},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
}
# Laid over it. Two stages want several GPUs.
SETTINGS = {
    "sft": {"gpus": 2, "max_steps": 4, "batch_size": 4, "gradient_checkpointing": False},
    "preferences": {"max_questions": 4, "samples": 1},
    "dpo": {"gpus": 4, "max_steps": 2, "batch_size": 4, "gradient_checkpointing": False},
    "evaluation": {"max_new_tokens": 24, "blank_image": False, "max_validation_rows": 8},
}


@pytest.fixture(scope="session")
def profile() -> dict:
    return yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def running_cluster(profile) -> Iterator[Cluster]:
    """One for all tests."""
    partitions = {
        entry["slurm_partition"]
        for entry in (profile["default-resources"], *profile["set-resources"].values())
        if "slurm_partition" in entry
    }
    try:
        with cluster(sorted(partitions)) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A folder to run the workflow in, with its configuration."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def flags(workdir) -> list:
    """What makes Snakemake run this workflow in that folder with the profile, from any other."""
    where = [
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        workdir,
        "--configfile",
        workdir / "settings.yaml",
    ]
    return [*where, "--profile", ROOT / "profiles/slurm"]
