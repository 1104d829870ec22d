"""What settings do to accuracy: tiny models trained on several sets by several arms and seeds, cell by cell.

A cell is convert, sft and evaluate in this process. Each leaves a JSON, so that a command that was stopped goes on
where it was.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import overlay, reading
from workflow_scripts.evaluation import protocols
from workflow_scripts.stages import convert, download, evaluate, evaluate_model, sft

VERSION = "4.1v"
# A tiny model is trained whole: 112 px, fp32, two CPU cores.
SETTINGS: dict[str, Any] = {
    "models": {VERSION: {"base": {"embedded": True}, "thinking": {"embedded": True}}},
    "sft": {
        "method": "full",
        "freeze_vision": False,
        "learning_rate": 2e-3,
        "weight_decay": 0.05,
        "batch_size": 32,
        "gradient_checkpointing": False,
        "gpus": 0,
        "save_steps": 10000,
        "log_steps": 100,
    },
    "evaluation": {"max_new_tokens": 128, "gpus": 0},
    "tracking": [],
}


@dataclass(frozen=True)
class Arm:
    """One way of training, by the settings that it changes."""

    name: str
    mode: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """What one training came to: accuracies of the test rows in percent, seconds of training alone."""

    dataset: str
    arm: str
    seed: int
    accuracy: float
    floor: float
    steps: int
    seconds: float


def run_cell(
    dataset: str, source: Mapping[str, Any], arm: Arm, sizes: Mapping[str, Any], seed: int, folder: Path
) -> Cell:
    """Train and evaluate in a folder of its own below `folder`, or read what an earlier command left there.

    `sizes` are settings that all arms share.
    """
    raw: dict[str, Any] = {"seed": seed, "datasets": {dataset: dict(source)}}
    for part in (SETTINGS, sizes, arm.settings):
        raw = overlay.merge(raw, dict(part))
    kept = folder / f"{files.fingerprint([raw, arm.mode])}.json"
    if kept.is_file():
        return Cell(**files.read_json(kept))
    settings, run = reading.validate(raw, where=arm.name), Run(dataset, VERSION, arm.mode)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        layout = Layout(Path(place))
        download.fetch(settings, layout, dataset, (VERSION, arm.mode))
        convert.convert(settings, layout, run)
        trained = sft.stage(settings, layout, run, layout.model(VERSION, arm.mode))
        scores = evaluate_model.evaluate_model(
            settings,
            layout,
            layout.trained("sft", run),
            VERSION,
            arm.mode,
            [dataset],
            layout.root / "scores.json",
        )
        train, test = (list(files.read_jsonl(layout.split(run, split))) for split in ("train", "test"))
        floor = protocols.breakdown(evaluate.floor_rows(train, test))
    percent = [100 * found["overall"]["accuracy"] for found in (scores, floor)]
    cell = Cell(dataset, arm.name, seed, *percent, trained["steps"], trained["seconds"])
    files.write_json(kept, asdict(cell))
    return cell


def sources(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The English sets: phantoms, and the real SLAKE where its folder is given."""
    yield "phantoms", {"reader": "slake", "embedded": options.phantoms, "languages": ["en"]}
    if options.realdata:
        path = options.realdata.resolve() / "slake" / "Slake1.0"
        yield "slake", {"reader": "slake", "path": str(path), "languages": ["en"]}


def table(title: str, command: str, cells: list[Cell]) -> str:
    """Markdown: a line for each set and arm, with the difference from the set's first arm."""
    lines = [
        f"# {title}", "", f"Written by `{command}`.", "",
        "| set | arm | accuracy by seed, % | mean | beside the first | floor | steps | s of training |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    by_arm: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        by_arm.setdefault((cell.dataset, cell.arm), []).append(cell)
    first: dict[str, float] = {}
    for (dataset, arm), found in by_arm.items():
        mean = statistics.mean(cell.accuracy for cell in found)
        difference = mean - first.setdefault(dataset, mean)
        seeds = ", ".join(f"{cell.accuracy:.1f}" for cell in found)
        floor, steps, seconds = (
            statistics.mean(getattr(cell, name) for cell in found) for name in ("floor", "steps", "seconds")
        )
        lines.append(
            f"| {dataset} | {arm} | {seeds} | {mean:.1f} | {difference:+.1f} | {floor:.1f} | {steps:.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks of accuracy have."""
    result = argparse.ArgumentParser(description=str(description).splitlines()[0])
    result.set_defaults(name=name)
    result.add_argument(
        "--realdata", type=Path, help="folder of the real annotations and images; none: phantoms alone"
    )
    result.add_argument("--phantoms", type=int, default=640, help="images that are drawn")
    result.add_argument("--epochs", type=float, default=3)
    result.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    result.add_argument(
        "--cells", type=Path, default=Path("results/accuracy") / name, help="where cells are kept"
    )
    result.add_argument(
        "--table", type=Path, default=Path("benchmarks") / f"{name}.md", help="what is written"
    )
    return result


def main(title: str, arms: list[Arm], options: argparse.Namespace) -> int:
    """Run what is missing, write the table and print it; the last line is JSON."""
    logging.basicConfig(level=logging.WARNING)
    sizes = {"sft": {"epochs": options.epochs}}
    cells: list[Cell] = []
    for dataset, source in sources(options):
        for arm in arms:
            for seed in options.seeds:
                started = time.monotonic()
                cells.append(run_cell(dataset, source, arm, sizes, seed, options.cells))
                took = time.monotonic() - started
                print(
                    f"{dataset}, {arm.name}, seed {seed}: {cells[-1].accuracy:.1f} % ({took:.0f} s)",
                    flush=True,
                )
    written = table(title, f"python -m benchmarks.{options.name}", cells)
    files.write_text(options.table, written)
    print(written)
    print(json.dumps({"cells": [asdict(cell) for cell in cells]}))
    return 0
