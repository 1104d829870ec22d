"""Vision features are computed once, kept on disk, and those that the tower would give."""

import pytest
import torch
from PIL import Image

from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data import features
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.data.features import FeatureStore, store_key

VERSION = VERSIONS["4.1v"]


@pytest.fixture(scope="module")
def backbone():
    return standins.pretrained_model(VERSION).model.eval()


@pytest.fixture
def pixels():
    return Pixels(standins.processor(VERSION).image_processor)


@pytest.fixture
def images(tmp_path):
    names = []
    for number in range(4):
        names.append(str(tmp_path / f"{number}.png"))
        Image.effect_noise((112, 100 + 20 * number), 40 + number).save(names[-1])
    return names


def test_they_are_those_of_the_tower_and_survive_the_process(tmp_path, backbone, pixels, images):
    FeatureStore(tmp_path / "f", "key").fill(backbone, pixels, images, 2**30)
    kept = FeatureStore(tmp_path / "f", "key").read(images)
    for image, (found, grid) in zip(images, kept, strict=True):
        patches, expected_grid = pixels(image)
        with torch.no_grad():
            expected = backbone.get_image_features(patches, expected_grid[None]).pooler_output[0]
        assert torch.equal(grid, expected_grid)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # by themselves


def test_what_is_there_is_not_computed_again(tmp_path, backbone, pixels, images):
    store = FeatureStore(tmp_path / "f", "key")
    store.fill(backbone, pixels, images[:3], 2**30)
    asked = []
    with backbone.visual.register_forward_pre_hook(lambda *_: asked.append(1)):
        FeatureStore(tmp_path / "f", "key").fill(backbone, pixels, images, 2**30)
    assert len(asked) == 1


def test_several_images_go_through_the_tower_at_once(tmp_path, backbone, pixels, images, monkeypatch):
    asked = []
    monkeypatch.setattr(features, "FORWARD_PATCHES", 150)
    with backbone.visual.register_forward_pre_hook(
        lambda _, patches, named: asked.append((len(patches[0]), len(named["grid_thw"]))), with_kwargs=True
    ):
        FeatureStore(tmp_path / "f", "key").fill(backbone, pixels, images, 2**30)
    assert sum(count for _, count in asked) == 4 and len(asked) < 4
    assert all(patches <= 150 for patches, _ in asked)


def test_runs_beside_each_other_keep_what_both_computed(tmp_path, backbone, pixels, images):
    one, other = (FeatureStore(tmp_path / "f", "key") for _ in range(2))
    one.fill(backbone, pixels, images[:2], 2**30)
    other.fill(backbone, pixels, images[2:], 2**30)
    assert FeatureStore(tmp_path / "f", "key").holds(images)


def test_what_was_computed_before_a_signal_is_kept(tmp_path, backbone, pixels, images, monkeypatch):
    monkeypatch.setattr(features, "FORWARD_PATCHES", 1)

    def interrupted(image):
        if image == images[3]:
            raise KeyboardInterrupt
        return pixels(image)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path / "f", "key").fill(backbone, interrupted, images, 2**30)
    store = FeatureStore(tmp_path / "f", "key")
    assert store.holds(images[:2]) and not store.holds(images[3:])


def test_the_limit_bounds_the_disk(tmp_path, backbone, pixels, images):
    store = FeatureStore(tmp_path / "f", "key")
    one = (
        backbone.get_image_features(pixels(images[0])[0], pixels(images[0])[1][None]).pooler_output[0].nbytes
    )
    store.fill(backbone, pixels, images, 2 * one + one // 2)
    assert store.read(images[:1]) and store.read(images) is None
    written = sum(file.stat().st_size for file in (tmp_path / "f").rglob("*.safetensors"))
    assert written < 3 * one


def test_another_tower_or_size_has_another_key(backbone, pixels):
    key = store_key(backbone, pixels)
    assert store_key(standins.pretrained_model(VERSION).model, pixels) == key
    assert store_key(standins.untrained_model(VERSION).model, pixels) != key
    pixels.image_processor.size = {"shortest_edge": 2 * 84**2, "longest_edge": 2 * 84**2}
    assert store_key(backbone, pixels) != key


def test_a_batch_has_features_or_pixels(corpus, tmp_path):
    dataset, _ = corpus.sft()
    given = corpus.collator()
    store = FeatureStore(tmp_path / "f", "key")
    rows = [dataset[index] for index in range(4)]
    assert "pixel_values" in SftCollator(**given, features=store)(rows)["tree"]
    backbone = standins.pretrained_model(VERSIONS[corpus.version]).model
    store.fill(backbone, given["pixels"], [path for row in rows for path in row["image_paths"]], 2**30)
    batch = SftCollator(**given, features=store)(rows)["tree"]
    assert "pixel_values" not in batch and batch["image_features"].shape[1] == 128


@pytest.mark.parametrize("damage", ["shortened", "a bit", "empty"])
def test_a_damaged_file_is_named_removed_and_made_again(tmp_path, backbone, pixels, images, caplog, damage):
    store = FeatureStore(tmp_path / "f", "key")
    store.fill(backbone, pixels, images, 2**30)
    whole = [(found.clone(), grid.clone()) for found, grid in store.read(images)]  # they lie in the file
    (file,) = (tmp_path / "f/key").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5000] ^= 1  # a feature's
    file.write_bytes({"shortened": content[:-9], "a bit": content, "empty": b""}[damage])

    ill = FeatureStore(tmp_path / "f", "key")
    assert ill.read(images) is None  # then a batch has pixels
    assert f"{file} is damaged" in caplog.text and not file.exists()
    ill.fill(backbone, pixels, images, 2**30)
    again = FeatureStore(tmp_path / "f", "key").read(images)
    for (found, grid), (expected, expected_grid) in zip(again, whole, strict=True):
        assert torch.equal(found, expected) and torch.equal(grid, expected_grid)
