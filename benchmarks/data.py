"""Time and memory of convert and validate over the three full sets, once and with their rows doubled.

`python -m benchmarks.data --realdata FOLDER` reads the real annotations from FOLDER. An image that is not there
is stood in for by a small drawn JPEG of its own. Each stage runs as the command that the workflow runs, images
undecoded; its peak resident memory is that of its process. The last line is JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run

RUN = Run("combined", "4.1v", "thinking")
FLAGS = ("--dataset", RUN.dataset, "--model_version", RUN.model_version, "--mode", RUN.mode)
SETTINGS = {
    "tracking": [],
    "data": {"decode_images": False},
    "models": {RUN.model_version: {RUN.mode: {"embedded": True}}},
}
# The folder of each set in FOLDER, and what of its rows' fields tells them apart.
SETS = {"slake": "slake/Slake1.0", "rad": "vqa_rad", "pathvqa": "pathvqa/pvqa"}
ANNOTATIONS = {
    "slake": ("train.json", "validate.json", "test.json"),
    "rad": ("VQA_RAD Dataset Public.json",),
    "pathvqa": ("qas/train_vqa.pkl", "qas/val_vqa.pkl", "qas/test_vqa.pkl"),
}
KEYS = {"slake": ("qid", "question"), "rad": ("qid", "question"), "pathvqa": ("question_id", "sent")}


def build(realdata: Path, raw: Path, times: int) -> int:
    """Write the three sets under `raw`, each row `times` times with an id and a question of its own; count rows."""
    from workflow_scripts.datasets.readers import READERS

    rows = 0
    for name, folder in SETS.items():
        for file in ANNOTATIONS[name]:
            _write(raw / name / file, list(_multiplied(_load(realdata / folder / file), *KEYS[name], times)))
        for row in READERS[name](raw / name):
            rows += 1
            _provide(realdata / folder / row.image, raw / name / row.image, row.image_id)
    return rows


def _multiplied(rows: list[dict], key: str, question: str, times: int) -> Iterator[dict]:
    for number in range(times):
        mark = f"{number}-" if number else ""
        for row in rows:
            changed = {key: f"{mark}{row[key]}", question: f"{row[question]} {mark}"}
            yield {**row, **changed} if number else row


def _load(path: Path) -> Any:
    from workflow_scripts.datasets.readers.pathvqa import load_plain_pickle

    return load_plain_pickle(path) if path.suffix == ".pkl" else files.read_json(path)


def _write(path: Path, rows: list[dict]) -> None:
    import pickle

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(rows) if path.suffix == ".pkl" else json.dumps(rows).encode())


def _provide(real: Path, image: Path, image_id: str) -> None:
    """The real image where it is, else a JPEG of 16 x 12 blocks that are grey as `image_id` says."""
    from PIL import Image

    if image.exists():
        return
    image.parent.mkdir(parents=True, exist_ok=True)
    if real.exists():
        image.symlink_to(real.resolve())
        return
    blocks = Image.frombytes("L", (16, 12), random.Random(image_id).randbytes(16 * 12))
    blocks.resize((160, 120)).save(image, "JPEG")


def measure(stage: str, arguments: list[str]) -> dict[str, float]:
    """Run a command of the workflow: its seconds and its peak resident memory in MB (10^6 bytes)."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", f"workflow_scripts.{stage}", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {stage} failed")
    return {
        "seconds": round(time.monotonic() - start, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
    }


def run(realdata: Path, folder: Path, times: int) -> dict:
    """Rows, and seconds and memory of each stage, with every row `times` times."""
    layout, settings = Layout(folder / "results"), folder / "config.yaml"
    folder.mkdir()
    files.write_json(settings, SETTINGS)  # JSON is YAML
    # In a process of its own: a child's peak memory counts that of its parent when it was started.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        rows = pool.submit(build, realdata, layout.root / "raw", times).result()
    common = ["--config", str(settings), "--results", str(layout.root)]
    measure("download", [*common, *FLAGS[2:]])
    stages = {stage: measure(stage, [*common, *FLAGS]) for stage in ("convert", "validate")}
    page = (layout.data(RUN) / "validation.html").stat().st_size
    return {"rows": rows, **stages, "page_kb": round(page / 1000)}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--realdata", type=Path, required=True, help="folder of the real annotations")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {times: run(options.realdata, Path(folder) / str(times), times) for times in (1, 2)}
    for result in found.values():
        for stage in ("convert", "validate"):
            cost = result[stage]
            print(f"{result['rows']:,} rows, {stage}: {cost['seconds']} s, {cost['peak_mb']:,} MB")
    print(json.dumps({"once": found[1], "doubled": found[2]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
