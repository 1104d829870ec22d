"""Write the table of docs/scale.md and docs/scale.zh.md: `python -m docs.scale`.

GPU hours are those of `training/estimation/requests.py`, at an H200's measured rates and at the bounds that a cluster is
asked for; sizes are those of the models' shapes and of what benchmarks/README.md measured.
"""

import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import reading, runs
from workflow_scripts.configuration.dependencies import STAGES
from workflow_scripts.configuration.overlay import merge
from workflow_scripts.configuration.settings import Combination, Config
from workflow_scripts.models import shapes
from workflow_scripts.training.checkpoints import KEPT
from workflow_scripts.training.estimation import requests, sets
from workflow_scripts.training.estimation.requests import BOUND, H200, Rates, Requests

ROOT = Path(__file__).parents[1]
PAGES = {ROOT / "docs/scale.md": 0, ROOT / "docs/scale.zh.md": 1}
PAGE_BYTES = 16.8e6 / 7_000  # of the page of a run, a question (benchmarks/README.md)
FP32, BF16, MOMENTS = 4, 2, 8  # bytes of a number: in an adapter, in a feature or weight, of AdamW
BESIDE = 4  # files of a job beside its outputs: log, benchmark, its costs, SLURM's log
LARGE = ("4.5v", "4.6v")
HEADS = (
    ("", "full matrix", "4.5V alone", "a hundred sets, 4.1V"),
    ("", "完整矩阵", "只有 4.5V", "一百个数据集，4.1V"),
)
ROWS = {
    "runs": ("runs", "运行数"),
    "jobs": ("jobs", "作业数"),
    "h200": ("GPU hours, an H200's measured rates", "GPU 小时，按 H200 实测速率"),
    "bound": ("GPU hours that are asked for at most", "最多申请的 GPU 小时"),
    "models": ("models, GB", "模型，GB"),
    "features": ("features of images, GB", "图像特征，GB"),
    "results": ("adapters and pages, GB", "适配器与页面，GB"),
    "passing": ("checkpoints while 32 trainings run, GB", "32 个训练同时运行时的检查点，GB"),
    "files": ("files, at least", "文件数，至少"),
    "tracked": ("MLflow runs, at most", "MLflow 运行数，至多"),
    "points": ("points of curves", "曲线上的点"),
}


def studies() -> dict[str, Config]:
    """The configurations of the columns: large models by LoRA on eight cards, all others on one."""
    large = yaml.safe_load((ROOT / "profiles/presets/glm45v_lora_8x80gb.yaml").read_text(encoding="utf-8"))
    own = {key: {"gpus": 8, **({"strategy": "zero3"} if key != "evaluation" else {})} for key in large}
    whole: dict[str, Any] = {"runs": [{}, *({"model_version": version, **own} for version in LARGE)]}
    pathvqa = Config().model_dump(mode="json", exclude_none=True)["datasets"]["pathvqa"]
    hundred = {
        "datasets": {f"set{number}": pathvqa for number in range(100)},
        "models": {"4.1v": Config().model_dump(mode="json", exclude_none=True)["models"]["4.1v"]},
    }
    return {
        "full": reading.validate(whole, where="docs.scale"),
        "4.5v": reading.validate(
            merge(whole, {"runs": [{"model_version": "4.5v", **own}]}), where="docs.scale"
        ),
        "hundred": reading.validate(hundred, where="docs.scale"),
    }


def figures(settings: Config) -> dict[str, int]:
    """The numbers of one column, by the keys of ROWS."""
    chosen = runs.chosen(settings)
    models = {(run.model_version, run.mode) for run in chosen}
    sources = {name for run in chosen for name in settings.sources(run.dataset)}
    fetched = len(models) + len(sources)
    asks = sum(len(_asks(settings, run)) for run in chosen)
    jobs = fetched + len(chosen) * (len(STAGES) - 1) + asks + 2  # report and all
    weights = sum(_shape(version).total * BF16 for version, _ in models)
    adapters = {run: _shape(run.model_version).adapter(settings.sft.lora.rank) for run in chosen}
    points = sum(_points(settings, run) for run in chosen)
    questions = {run: math.ceil(requests.OF_TEST * _rows(settings, run).rows) for run in chosen}
    results = sum(2 * FP32 * adapters[run] + PAGE_BYTES * questions[run] for run in chosen)
    states = sorted(((FP32 + MOMENTS) * numbers for numbers in adapters.values()), reverse=True)
    outputs = {name: _outputs(name) for name in STAGES}
    files = len(chosen) * sum(count + BESIDE for name, count in outputs.items() if name != "ask")
    return {
        "runs": len(chosen),
        "jobs": jobs,
        "h200": round(_gpu_hours(settings, chosen, H200)),
        "bound": round(_gpu_hours(settings, chosen, BOUND)),
        "models": round(weights / 1e9),
        "features": round(_features(settings, models) / 1e9),
        "results": round(results / 1e9),
        "passing": round(KEPT * sum(states[:32]) / 1e9),
        "files": files + asks * (outputs["ask"] + BESIDE) + fetched * (1 + BESIDE),
        "tracked": len(chosen) * len(STAGES) + asks,  # of the run itself, and its stages
        "points": points,
    }


@cache
def _shape(version: str) -> shapes.Shape:
    return shapes.published(version)


def _asks(settings: Config, run: Run) -> set[tuple[str, str]]:
    return set(runs.settings_of(settings, run).evaluation.asked.values())


def _rows(settings: Config, run: Run) -> sets.Rows:
    return sets.as_published(settings, run, _shape(run.model_version))


def _gpu_hours(settings: Config, chosen: Iterable[Run], rates: Rates) -> float:
    """Of all stages with a model; what is asked for is in whole tens of minutes and has those of the start."""
    needs, total = Requests(settings, Layout(Path("none")), rates), 0.0
    for run in chosen:
        own = runs.settings_of(settings, run)
        asked = [("ask", model) for model, _ in _asks(settings, run)]
        for stage, model in [("sft", ""), ("preferences", ""), ("dpo", ""), *asked]:
            need = needs.need(stage, run, model)
            hours = need.resource("runtime") / 60 if rates is BOUND else need.seconds / 3600
            total += hours * getattr(own, requests.SECTIONS[stage]).gpus
    return total


def _features(settings: Config, models: Iterable[tuple[str, str]]) -> float:
    """Of every image of the sets once for each tower, at most what `vision_cache_gb` lets."""
    found = 0.0
    for version, mode in models:
        singles = [name for name, each in settings.datasets.items() if not isinstance(each, Combination)]
        rows = [_rows(settings, Run(name, version, mode)) for name in singles]
        width = _shape(version).text.hidden_size * BF16
        found += sum(each.images * each.image * width for each in rows)
    return min(found, settings.sft.vision_cache_gb * 1e9)


def _points(settings: Config, run: Run) -> int:
    own = runs.settings_of(settings, run)
    sft = own.sft.epochs * _rows(settings, run).rows / own.sft.batch_size
    dpo = own.dpo.epochs * own.preferences.max_pairs / own.dpo.batch_size
    return round(sft / own.sft.log_steps) + round(dpo / own.dpo.log_steps)


def _outputs(rule: str) -> int:
    text = (ROOT / "rules" / f"{rule}.smk").read_text(encoding="utf-8")
    return text.split("    output:\n")[1].split("    log:\n")[0].count('"<results>')


def table(language: int) -> str:
    columns = [figures(settings) for settings in studies().values()]
    lines = [HEADS[language], ("---", *["---:"] * len(columns))]
    lines += [(words[language], *(f"{each[key]:,}" for each in columns)) for key, words in ROWS.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(text: str, language: int) -> str:
    """The page with today's table in it."""
    return re.sub(r"^\| +\|.*?(?=\n\n)", lambda _: table(language), text, count=1, flags=re.M | re.S)


if __name__ == "__main__":
    for page, language in PAGES.items():
        page.write_text(written(page.read_text(encoding="utf-8"), language), encoding="utf-8")
