"""Images that look the same though their files differ: saved again, scaled, or the next slice of one scan.

Two images are near-duplicates where at most `MOST_BITS` of the 256 bits of their difference hashes differ
(dHash, N. Krawetz 2013, by imagehash). On SLAKE that finds the neighbouring slices of one patient.
"""

import os
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import imagehash
import numpy as np
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.pictures.images import open_image

SIDE = 16
MOST_BITS = 12

Key = TypeVar("Key", bound=Hashable)


class Look(NamedTuple):
    """What a picture looks like: its difference hash, and whether all its pixels are of one colour."""

    bits: bytes
    blank: bool


def difference_hash(image: Image.Image) -> bytes:
    """The 256 bits of `image`, whether each of 16 x 16 cells is darker than the one to its right, as 32 bytes."""
    return np.packbits(imagehash.dhash(image, SIDE).hash).tobytes()


def decode(paths: Iterable[Path], frames: FrameRule = FRAMES) -> Iterator[tuple[Path, Look | UserError]]:
    """Each image file decoded whole: its look, or what is wrong with it.

    Pillow decodes without holding the interpreter's lock, so threads share the work: those of the workflow's job,
    which Snakemake names in OMP_NUM_THREADS, else all cores.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # after a comma, those of nested loops
    threads = int(given) if given.isdecimal() else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(partial(_decoded, frames), paths)


def _decoded(frames: FrameRule, path: Path) -> tuple[Path, Look | UserError]:
    try:
        image = open_image(path, frames)
        return path, Look(difference_hash(image), all(low == high for low, high in _extrema(image)))
    except UserError as error:
        return path, error


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The least and the greatest value of each channel of an RGB image."""
    found: tuple[tuple[int, int], ...] = image.getextrema()  # type: ignore[assignment]
    return found


def hashes(paths: Iterable[Path], frames: FrameRule = FRAMES) -> dict[Path, bytes]:
    """The difference hash of each file; all that cannot be decoded make one UserError, a line for each."""
    found, bad = {}, []
    for path, outcome in decode(paths, frames):
        if isinstance(outcome, UserError):
            bad.append(str(outcome))
        else:
            found[path] = outcome.bits
    if bad:
        raise UserError("\n".join(bad))
    return found


def pairs(left: dict[Key, bytes], right: dict[Key, bytes]) -> list[tuple[int, Key, Key]]:
    """(bits that differ, left image, right image) of each near-duplicate pair, the nearest first.

    Takes time by the product of both sizes, 4,000 x 2,000 images about a second, and memory by one row of it.
    """
    if not left or not right:
        return []
    words = np.array([np.frombuffer(value, np.uint64) for value in right.values()])
    names = list(right)
    found = []
    for name, value in left.items():
        bits = np.bitwise_count(words ^ np.frombuffer(value, np.uint64)).sum(axis=1, dtype=np.int64)
        found += [(int(bits[index]), name, names[index]) for index in np.flatnonzero(bits <= MOST_BITS)]
    return sorted(found, key=lambda pair: (pair[0], str(pair[1]), str(pair[2])))
