"""The benchmarks build what they say."""

from workflow_scripts import files
from workflow_scripts.datasets.readers import READERS


def test_rows_are_doubled_and_every_image_is_there(realdata, tmp_path, monkeypatch):
    from benchmarks import data

    monkeypatch.setattr(data, "SETS", {"rad": data.SETS["rad"]})
    assert data.build(realdata, tmp_path, times=2) == 2 * 2248
    rows = list(READERS["rad"](tmp_path / "rad"))
    assert len({row.id for row in rows}) == 2 * 2248
    images = {row.image for row in rows}
    assert len({files.sha256(tmp_path / "rad" / image) for image in images}) == len(images) == 314
