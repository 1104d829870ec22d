"""Features of a frozen vision tower: computed once per image, kept on disk, read back by batches."""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from workflow_scripts.base import files, scratch
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.engine.forward import Backbone
from workflow_scripts.training.engine.vision import image_features

logger = logging.getLogger(__name__)

SHARD_BYTES = 2**29
FORWARD_PATCHES = 2**14  # of one pass of the tower: five images of 768 x 768 pixels


class FeatureStore:
    """The features of images for one tower and one way of processing, in `folder`/{key}/*.safetensors.

    An image is known by its content; `digests` are those that are known already. Each process reads for itself, so
    that batches can be made in workers.
    """

    def __init__(self, folder: Path, key: str, digests: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder / key
        self._digests = dict(digests)
        self._shards: dict[str, str] = {}
        self._opened: dict[str, Any] = {}
        self._look()

    def _look(self) -> None:
        """Note what lies in the folder."""
        for shard in self.folder.glob("*.safetensors"):  # what other runs are writing has another name
            try:
                with safe_open(shard, "pt") as opened:
                    self._note(shard.name, opened.keys())
            except FileNotFoundError:  # another process has found it damaged
                pass
            except SafetensorError as error:
                self._remove(shard.name, str(error))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def read(self, images: Sequence[str]) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
        """(features [tokens, hidden size], patch grid [3]) of each image; None if one of them is not here, or damaged."""
        found = []
        for image in images:
            if not self.holds([image]) or (entry := self._entry(self._digest(image))) is None:
                return None
            found.append(entry)
        return found

    def holds(self, images: Sequence[str]) -> bool:
        """Whether the features of all `images` are here."""
        return all(self._digest(image) in self._shards for image in images)

    def _entry(self, digest: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        name = self._shards[digest]
        try:
            if name not in self._opened:
                self._opened[name] = safe_open(scratch.near(self.folder / name), "pt")
            shard = self._opened[name]
            features, grid, known = (shard.get_tensor(f"{digest}{end}") for end in ("", ".grid", ".sum"))
        except FileNotFoundError:
            self._forget(name)
            return None
        if not torch.equal(_checksum(features, grid), known):
            self._remove(name, "what it holds has changed")
            return None
        return features, grid

    def _remove(self, shard: str, why: str) -> None:
        """Remove a damaged file: its features are computed again."""
        logger.warning(
            "%s is damaged (%s) and removed; its features are computed again", self.folder / shard, why
        )
        (self.folder / shard).unlink(missing_ok=True)
        self._forget(shard)

    def _forget(self, shard: str) -> None:
        self._shards = {digest: name for digest, name in self._shards.items() if name != shard}
        self._opened.pop(shard, None)

    def _digest(self, image: str) -> str:
        if image not in self._digests:
            self._digests[image] = files.sha256(Path(image))
        return self._digests[image]

    @torch.no_grad()
    def fill(self, backbone: Backbone, pixels: Pixels, images: Sequence[str], limit: int) -> None:
        """Compute and keep what is missing of `images`, until the features of all towers take `limit` bytes.

        All processes of a training call it together: each computes its share, and all have the whole in the end.
        """
        state = PartialState()
        held = sum(file.stat().st_size for file in self.folder.parent.rglob("*.safetensors"))
        missing = [image for digest, image in self._by_digest(images) if digest not in self._shards]
        missing, held = broadcast_object_list([missing, held])  # another process may have begun to write
        mine = missing[state.process_index :: state.num_processes]
        self._compute(backbone, pixels, mine, (limit - held) // state.num_processes, limit)
        state.wait_for_everyone()
        self._look()

    def _compute(self, backbone: Backbone, pixels: Pixels, images: list[str], room: int, limit: int) -> None:
        """Compute and keep the features of `images` until they take `room` bytes."""
        shard: dict[str, torch.Tensor] = {}
        written = size = done = 0
        with tqdm(total=len(images), unit="image", desc="vision", disable=None, leave=False) as bar:
            try:
                for batch in _batches(pixels, images):
                    patches, grids = (torch.cat(values) for values in batch)
                    found = image_features(backbone, patches.to(backbone.visual.device), grids.tolist())
                    for features, grid in zip(found, grids, strict=True):
                        if written + size + features.nbytes > room:
                            self._warn_full(len(images) - done, limit)
                            return
                        digest = self._digest(images[done])
                        here, its_grid = features.cpu().contiguous(), grid.clone()
                        shard |= {digest: here, f"{digest}.grid": its_grid}
                        shard[f"{digest}.sum"] = _checksum(here, its_grid)
                        size, done = size + features.nbytes, done + 1
                    bar.update(len(grids))
                    if size >= SHARD_BYTES:
                        self._write(shard)
                        written, size, shard = written + size, 0, {}
            finally:  # what a signal interrupts is not lost
                if shard:
                    self._write(shard)

    def _by_digest(self, images: Sequence[str]) -> Iterable[tuple[str, str]]:
        """Each content once, with one of the images that have it."""
        return {self._digest(image): image for image in images}.items()

    def _warn_full(self, left: int, limit: int) -> None:
        others = sorted(folder.name for folder in self.folder.parent.glob("*") if folder != self.folder)
        logger.warning(
            "%s is full at %g GiB: the features of %d images are computed in every epoch; raise vision_cache_gb%s",
            self.folder.parent,
            limit / 2**30,
            left,
            f", or delete what no run uses any more of {', '.join(others)} there" if others else "",
        )

    def _write(self, shard: dict[str, torch.Tensor]) -> None:
        name = f"{files.fingerprint(sorted(shard))}.safetensors"
        with files.replacing(self.folder / name) as temporary:
            save_file(shard, temporary)
        self._note(name, shard)

    def _note(self, shard: str, names: Iterable[str]) -> None:
        """Remember which images' features lie in `shard`, by the names of its tensors."""
        self._shards |= {name: shard for name in names if not name.endswith((".grid", ".sum"))}


def _checksum(features: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Of all bytes of both [1], by which damage is noticed."""
    start = zlib.crc32(_bytes(grid))
    return torch.tensor([zlib.crc32(_bytes(features), start)])


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().view(torch.uint8).numpy().data


def _batches(
    pixels: Pixels, images: Sequence[str]
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Patches, each [patches, values], and grids, each [1, 3], of several images at a time, up to FORWARD_PATCHES."""
    patches: list[torch.Tensor] = []
    grids: list[torch.Tensor] = []
    for image in images:
        values, grid = pixels(image)
        if patches and sum(map(len, patches)) + len(values) > FORWARD_PATCHES:
            yield patches, grids
            patches, grids = [], []
        patches.append(values)
        grids.append(grid[None])
    if patches:
        yield patches, grids


def store_key(backbone: Backbone, pixels: Pixels) -> str:
    """What features depend on besides the image: the tower and its weights with their type, and how pixels are made."""
    made = {"checksums": True, "pixels": pixels.settings(), "tower": backbone.visual.config.to_dict()}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode())
    for name, parameter in sorted(backbone.visual.state_dict().items()):
        digest.update(f"{name} {parameter.dtype}".encode())
        digest.update(_bytes(parameter.detach().cpu()))
    return digest.hexdigest()[:16]
