"""Thumbnails: small, of any kind of picture, and never more than a page has room for."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.pages.thumbnails import LADDER, thumbnail, thumbnails


def shown(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(";base64,")[2])))


def noise(name):
    return Image.fromarray(np.random.default_rng(int(name)).integers(0, 256, (240, 320, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_thumbnail_is_a_small_jpeg(mode):
    image = Image.new(mode, (800, 400))
    small = shown(thumbnail(image))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (200, 100))
    assert image.size == (800, 400)


def test_few_pictures_are_shown_large():
    found = thumbnails(["1", "2"], noise)
    assert list(found.uris) == ["1", "2"] and not found.reduced and not found.missing
    assert [shown(uri).format for uri in found.uris.values()] == ["WEBP"] * 2
    assert max(shown(found.uris["1"]).size) == LADDER[0][0]


@pytest.mark.parametrize("budget", [600_000, 160_000, 40_000, 8_000])
def test_many_pictures_keep_to_the_budget(budget):
    names = [f"{number}" for number in range(40)]
    found = thumbnails(names, noise, budget)
    assert sum(map(len, found.uris.values())) <= budget and found.reduced
    assert found.missing == 40 - len(found.uris)
    assert budget == 8_000 or found.missing <= 2


def test_a_picture_that_cannot_be_read_is_counted():
    def opened(name):
        if name == "2":
            raise UserError("2: not an image")
        return noise(name)

    found = thumbnails(["1", "2"], opened)
    assert list(found.uris) == ["1"] and found.missing == 1
    assert thumbnails([], opened).uris == {}
