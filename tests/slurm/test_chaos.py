"""`make chaos` in small: one run of the matrix, and about one fault of each kind."""

import chaos
import pytest
from cluster import Cluster

pytestmark = pytest.mark.slurm


def test_a_run_under_faults_comes_to_the_same_bytes(running_cluster: Cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("quiet", "stormy"):
        evaluation = {**chaos.CONFIGURATION["evaluation"], "blank_image": False}
        chaos.prepare(tmp_path / name, 1, ["base"], evaluation=evaluation)
    assert not chaos.soak(running_cluster, tmp_path, faults=6, seed=1, seconds=1400, pauses=(10, 25))
