"""Fetch what a run starts from: a data set's raw files or a model, from the hub, a local copy, or embedded."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout
from workflow_scripts.configuration.settings import Combination, Config
from workflow_scripts.datasets.readers.tables import FieldName
from workflow_scripts.models.catalogue import VERSIONS

logger = logging.getLogger(__name__)

MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


class Entry(TypedDict):
    """A file as a manifest lists it."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """Where files came from, and what they are; `fingerprint` is of their digests."""

    origin: dict[str, Any]
    version: int
    fingerprint: str
    files: dict[str, Entry]


def download_source(settings: Config, layout: Layout, name: str) -> None:
    """Put the raw files of one source under `raw/{name}/`, with a manifest."""
    source = settings.dataset(name)
    if isinstance(source, Combination):
        raise UserError(f"--dataset {name}: is combined from {', '.join(source.members)}; download these")
    from workflow_scripts.datasets.readers import custom, parquet, places

    origin: dict[str, Any]
    digests: dict[str, str] = {}
    with files.replacing_folder(layout.raw(name)) as folder:
        if source.embedded:
            from workflow_scripts.datasets.phantoms import layouts

            layouts.WRITERS[source.reader](folder, source.embedded, settings.seed)
            origin = {"embedded": source.embedded, "seed": settings.seed}
        elif source.path:
            if source.reader == "custom" and source.path.is_file():
                _link_table(source.path, source.columns, folder)
            else:
                _link(source.path, folder, f"datasets.{name}.path")
            origin = {"path": str(source.path)}
        else:
            from workflow_scripts.datasets.acquire import hub

            origin, digests = hub.fetch(
                _stated(source.repository, f"datasets.{name}.repository"),
                _stated(source.revision, f"datasets.{name}.revision"),
                folder,
                source.files or None,
                kind="dataset",
            )
        if source.images:
            if (folder / places.IMAGES).exists():
                raise UserError(
                    f"datasets.{name}.images: the set has a folder {places.IMAGES}/ already; leave it out"
                )
            _link(source.images, folder / places.IMAGES, f"datasets.{name}.images")
        _unpack_archives(folder)
        if source.reader == "custom":
            custom.unpack(folder, source.columns)
            custom.render(folder, source.columns, settings.data.frames)
        else:
            for table in sorted(folder.rglob("*.parquet")):
                parquet.unpack_images(table, folder / places.IMAGES)
        _write_manifest(folder, {**origin, "licence": source.licence}, digests)


def download_model(settings: Config, layout: Layout, version: str, mode: str) -> None:
    """Put a checkpoint under `models/{version}_{mode}/`, with a manifest."""
    checkpoint = settings.checkpoint(version, mode)
    origin: dict[str, Any]
    digests: dict[str, str] = {}
    with files.replacing_folder(layout.model(version, mode)) as folder:
        if checkpoint.embedded:
            from workflow_scripts.models import standins

            standins.save(VERSIONS[version], mode, folder)
            origin = {"embedded": True}
        elif checkpoint.path:
            _link(checkpoint.path, folder, f"models.{version}.{mode}.path")
            origin = {"path": str(checkpoint.path)}
        else:
            from workflow_scripts.datasets.acquire import hub

            repository = _stated(checkpoint.repository, f"models.{version}.{mode}.repository")
            origin, digests = hub.fetch(repository, checkpoint.revision, folder, MODEL_FILES, kind="model")
        _write_manifest(folder, origin, digests)


def _stated(value: str | None, key: str) -> str:
    """What the configuration must state of a repository; `reading` has refused one that does not."""
    if value is None:
        raise UserError(f"{key}: missing")
    return value


def _link(origin: Path, folder: Path, key: str) -> None:
    """Link every file below `origin` into `folder`, in the same layout."""
    if not origin.is_dir():
        raise UserError(f"{key}: {origin} is not a folder")
    for parent, _, names in os.walk(origin, followlinks=True):
        target = folder / Path(parent).relative_to(origin)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            (target / name).symlink_to((Path(parent) / name).resolve())


def _link_table(table: Path, columns: Mapping[FieldName, str], folder: Path) -> None:
    """Link a custom table, its description and the images beside it that it names, and nothing else of its folder."""
    from workflow_scripts.datasets.readers import custom, dataset_info
    from workflow_scripts.datasets.readers.file_names import Folder

    for beside in (table, table.with_name(dataset_info.NAME)):
        if beside.is_file():
            (folder / beside.name).symlink_to(beside.resolve())
    beside_table = Folder(table.parent)
    for stated in custom.images(folder, columns):
        image = beside_table.find(stated)
        if image and not Path(image).is_absolute():
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            (folder / image).symlink_to((table.parent / image).resolve())


def _unpack_archives(folder: Path) -> None:
    for archive in sorted(folder.rglob("*.zip")):
        from workflow_scripts.datasets.acquire import archives

        archives.unpack(archive, archive.parent)


def _write_manifest(folder: Path, origin: dict[str, Any], digests: dict[str, str]) -> None:
    """List every file with its size and SHA-256, which `digests` has of those that the hub just checked."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = sorted(str(path.relative_to(folder)) for path in paths)
    entries: dict[str, Entry] = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": digests.get(name) or files.sha256(folder / name),
        }
        for name in names
        if name != MANIFEST
    }
    fingerprint = files.fingerprint({name: entry["sha256"] for name, entry in entries.items()})
    manifest: Manifest = {
        "origin": origin,
        "version": versions.RESULTS["download"],
        "fingerprint": fingerprint,
        "files": entries,
    }
    files.write_json(folder / MANIFEST, manifest)


def _verify(folder: Path) -> None:
    """Compare each file that the manifest of `folder` lists with its size and SHA-256 there."""
    listed: dict[str, Entry] = files.read_value(folder / MANIFEST, "files")
    wrong = [name for name, entry in listed.items() if not _is_as_listed(folder / name, entry)]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} of {len(listed)} files are missing or not what {MANIFEST} says: "
            f"{', '.join(wrong[:20])}; run the same command without --verify to put them right"
        )
    logger.info("%s: all %d files are what %s says", folder, len(listed), MANIFEST)


def _is_as_listed(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and files.sha256(path) == entry["sha256"]


def fetch(settings: Config, layout: Layout, dataset: str | None, model: tuple[str, str] | None) -> None:
    """Download the sources of `dataset`, and `model`, a (version, mode)."""
    for name in settings.sources(dataset) if dataset else ():
        with locks.one_writer(layout.raw(name), settings.output_in_use):
            download_source(settings, layout, name)
        logger.info("%s: in %s", name, layout.raw(name))
    if model:
        with locks.one_writer(layout.model(*model), settings.output_in_use):
            download_model(settings, layout, *model)
        logger.info("model %s %s: in %s", *model, layout.model(*model))


def verify(settings: Config, layout: Layout, dataset: str | None, model: tuple[str, str] | None) -> None:
    """Compare what `fetch` has put there with its manifests."""
    for name in settings.sources(dataset) if dataset else ():
        _verify(layout.raw(name))
    if model:
        _verify(layout.model(*model))
