import pytest

from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS


@pytest.fixture(
    scope="session",
    params=[(version, mode) for version in VERSIONS for mode in ("thinking", "base")],
    ids="_".join,
)
def cell(request):
    """(model version, mode)"""
    return request.param


@pytest.fixture(scope="session")
def processor(cell):
    version, _ = cell
    return standins.processor(VERSIONS[version])
