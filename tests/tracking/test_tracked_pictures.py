"""Trackers are given pictures of the data only where the configuration lets them."""

import pytest
from PIL import Image

from workflow_scripts import tracking
from workflow_scripts.base import files
from workflow_scripts.configuration.settings import Config


@pytest.fixture
def predictions(layout, run):
    path = layout.predictions(run)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (600, 300), "red").save(path.parent / "a.png")
    asked = {"source": "slake", "language": "en", "answer_type": "open", "question": "what?", "gold": "red"}
    rows = [
        {**asked, "id": str(number), "stage": stage, "answer": "red", "image": "a.png"}
        for stage in ("sft", "dpo")
        for number in range(250)
    ]
    files.write_jsonl(path, rows)
    return path


@pytest.mark.parametrize("pictures", [True, False])
def test_nothing_of_the_images_is_sent_where_that_is_set(layout, run, predictions, seen, pictures):
    page = layout.evaluation_page(run)
    page.write_text("<img>")
    with tracking.stage(Config(tracking_images=pictures), layout, run, "evaluate", {}) as record:
        record.artifact(page, "pages", pictures=True)
        record.table(predictions, "predictions")
    client, _, (child,) = seen()
    kept = {entry.path for entry in client.list_artifacts(child.info.run_id)}
    assert ({"pages", "table_images"} <= kept) == pictures and ("pages" in kept) == pictures
    table = files.read_json(layout.root / client_path(child, "predictions.json"))
    assert ("image" in table["columns"]) == pictures
    assert {"sft", "dpo", "question", "gold"} <= set(table["columns"]) and 50 <= len(table["data"]) <= 100


def client_path(run, name):
    from urllib.parse import urlparse

    return urlparse(run.info.artifact_uri).path + f"/{name}"
