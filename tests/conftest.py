import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real annotations and sample images, which is no part of the project."""
    root = Path(__file__).resolve().parents[1]
    folder = root / os.environ.get("MEDVQA_REALDATA", "../shared/realdata")
    if not folder.is_dir():
        pytest.skip("no real data here; set MEDVQA_REALDATA to its folder")
    return folder
