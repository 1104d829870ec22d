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


@pytest.mark.parametrize("pictures", [True, False])
def test_wandb_shows_the_same_sample(layout, run, predictions, pictures, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    settings = Config(tracking=["wandb"], tracking_images=pictures)
    with tracking.stage(settings, layout, run, "evaluate", {"seed": 7}) as record:
        record.table(predictions, "predictions")
    (media,) = (layout.root / "wandb").glob("wandb/offline-run-*/files/media")
    (table,) = map(files.read_json, media.glob("table/*.table.json"))
    shown = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert 50 <= len(shown) <= 100 and len({row["id"] for row in shown}) == len(shown)
    assert all((row["sft"], row["dpo"], row["gold"]) == ("red", "red", "red") for row in shown)
    copied = [
        path.read_bytes()[:4] for path in (layout.root / "wandb/artifacts").rglob("*") if path.is_file()
    ]
    assert (b"\x89PNG" in copied) == pictures == ("image" in table["columns"])
    (kept,) = (layout.root / "wandb").glob("wandb/offline-run-*/*.wandb")
    written = kept.read_bytes()
    assert b"git_commit" in written and b"manifests" in written and b"memory_gb" in written


def test_what_was_recorded_before_pictures_were_forbidden_keeps_them_back(layout, run, seen):
    page, plain = layout.evaluation_page(run), layout.validation(run)
    for path in (page, plain):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<img>")
    with tracking.stage(Config(tracking=["tensorboard"]), layout, run, "evaluate", {}) as record:
        record.artifact(page, "pages", pictures=True)
        record.artifact(plain, "checks")
    tracking.sync(Config(tracking=["mlflow"], tracking_images=False), layout)
    client, _, (child,) = seen()
    kept = {entry.path for entry in client.list_artifacts(child.info.run_id)}
    assert "checks" in kept and "pages" not in kept


def client_path(run, name):
    from urllib.parse import urlparse

    return urlparse(run.info.artifact_uri).path + f"/{name}"
