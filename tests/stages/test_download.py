"""Embedded and local sources, and manifests."""

import pytest

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.reading import validate
from workflow_scripts.configuration.settings import Config
from workflow_scripts.stages import download


def settings(**datasets) -> Config:
    return validate({"datasets": datasets}, "test")


def embedded(reader: str) -> dict:
    return {"reader": reader, "embedded": 10, "licence": "none"}


@pytest.mark.parametrize("reader", ["slake", "rad", "pathvqa"])
def test_embedded_sources_are_the_same_every_time_and_fully_listed(tmp_path, reader):
    manifests = []
    for folder in ("one", "two"):
        layout = Layout(tmp_path / folder)
        download.download_source(settings(mine=embedded(reader)), layout, "mine")
        manifest = files.read_json(layout.raw("mine") / "manifest.json")
        present = {
            str(path.relative_to(layout.raw("mine")))
            for path in layout.raw("mine").rglob("*")
            if path.is_file()
        }
        assert set(manifest["files"]) == present - {"manifest.json"}
        for name, entry in manifest["files"].items():
            assert files.sha256(layout.raw("mine") / name) == entry["sha256"]
        manifests.append(manifest)
    assert manifests[0] == manifests[1]
    assert manifests[0]["origin"] == {"embedded": 10, "seed": 42, "licence": "none"}


def test_a_local_copy_is_linked_hashed_and_recorded(tmp_path):
    (tmp_path / "mine" / "imgs").mkdir(parents=True)
    (tmp_path / "mine" / "imgs" / "a.jpg").write_bytes(b"picture")
    layout = Layout(tmp_path / "results")
    download.download_source(
        settings(mine={"reader": "slake", "path": str(tmp_path / "mine")}), layout, "mine"
    )
    linked = layout.raw("mine") / "imgs" / "a.jpg"
    assert linked.is_symlink() and linked.read_bytes() == b"picture"
    manifest = files.read_json(layout.raw("mine") / "manifest.json")
    assert list(manifest["files"]) == ["imgs/a.jpg"] and manifest["origin"]["path"] == str(tmp_path / "mine")


def test_a_missing_local_copy_names_the_key_and_leaves_nothing(tmp_path):
    layout = Layout(tmp_path / "results")
    with pytest.raises(UserError, match=r"datasets\.mine\.path: .*gone is not a folder"):
        download.download_source(settings(mine={"reader": "slake", "path": "gone"}), layout, "mine")
    assert list((tmp_path / "results" / "raw").iterdir()) == []


def test_an_unreachable_hub_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = {"reader": "slake", "repository": "a/b", "revision": "c"}
    with pytest.raises(UserError, match="the hub cannot be reached.*path:"):
        download.download_source(settings(mine=source), Layout(tmp_path), "mine")
    assert list((tmp_path / "raw").iterdir()) == []
