"""The samples on the validation page: drawn evenly and by seed, and shown as the model sees them."""

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.datasets.checks.structure import PlacedRecord
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.pixels import Pixels, picture
from workflow_scripts.pages.samples import SAMPLES, Sampler, token_texts


@pytest.fixture(scope="module")
def processor():
    return standins.processor(VERSIONS["4.1v"])


def draw(seed, rows):
    sampler = Sampler(seed)
    for row in rows:
        sampler.add(row)
    return [row.record["id"] for row in sampler.rows()]


def rows(split, source, count):
    return [
        PlacedRecord("", split, line, {"id": f"{split}-{source}-{line}", "source": source})
        for line in range(count)
    ]


def test_samples_are_spread_over_splits_and_sets():
    drawn = draw(0, rows("test", "a", 2) + rows("train", "a", 500) + rows("train", "b", 500))
    assert len(drawn) == len(set(drawn)) == SAMPLES
    parts = [id.rsplit("-", 1)[0] for id in drawn]
    assert parts[-2:] == ["test-a"] * 2
    assert {part: parts.count(part) for part in parts} == {"train-a": 5, "train-b": 5, "test-a": 2}


def test_the_seed_decides_and_the_order_does_not():
    many = rows("train", "a", 500)
    assert sorted(draw(1, many)) == sorted(draw(1, many[::-1]))
    assert draw(1, many) != draw(2, many)


@pytest.mark.parametrize("size", [(400, 100), (97, 103), (640, 480)])
def test_the_picture_is_what_the_image_processor_made(processor, size, tmp_path):
    gradient = np.linspace(0, 255, size[0])[None] * np.ones((size[1], 1))
    image = Image.fromarray(np.stack([gradient, gradient[:, ::-1], gradient * 0 + 50], -1).astype(np.uint8))
    image.save(tmp_path / "a.png")
    patches, grid = Pixels(processor.image_processor)(str(tmp_path / "a.png"))
    seen = picture(patches, grid, processor.image_processor)
    assert (seen.height // 14, seen.width // 14) == tuple(grid[1:].tolist())
    expected = image.resize(seen.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(seen, float) - np.asarray(expected, float)).mean() < 1.5


@pytest.mark.parametrize("text", ["<answer>Left lung</answer><|user|>", "肺在左边，龘。", ""])
def test_a_text_is_cut_where_its_tokens_begin(processor, text):
    pieces = token_texts(processor.tokenizer, text)
    assert "".join(pieces) == text
    if text.isascii():
        ids = processor.tokenizer.encode(text, add_special_tokens=False)
        assert pieces == [processor.tokenizer.decode([id]) for id in ids] or not text
