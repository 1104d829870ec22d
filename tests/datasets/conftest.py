from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

from workflow_scripts.datasets.phantoms.layouts import WRITERS
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.readers.parquet import unpack_images
from workflow_scripts.datasets.records import Example

PHANTOM_IMAGES = 120


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A hub on this machine."""
    with HubServer() as server:
        yield server


@pytest.fixture(scope="session")
def phantom_sets(tmp_path_factory) -> Path:
    """The three sets in their raw layouts, as they lie after download."""
    root = tmp_path_factory.mktemp("phantoms")
    for name, write in WRITERS.items():
        write(root / name, PHANTOM_IMAGES, seed=0)
    for file in (root / "pathvqa" / "data").iterdir():
        unpack_images(file, root / "pathvqa" / "images")
    return root


@pytest.fixture(scope="session")
def phantom_examples(phantom_sets) -> dict[str, list[Example]]:
    return {name: list(READERS[name](phantom_sets / name)) for name in WRITERS}
