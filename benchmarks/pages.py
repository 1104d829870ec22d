"""How large the pages of a run and of many runs are, and how long they take to write and, in Chromium, to open.

Of made answers.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.browser import browser
from workflow_scripts.datasets import terminology
from workflow_scripts.evaluation import analysis, protocols
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.statistics.clusters import clusters
from workflow_scripts.evaluation.table import Evaluation
from workflow_scripts.pages import evaluation_page, evidence, rendering
from workflow_scripts.pages.thumbnails import thumbnails

QUESTIONS, IMAGES = 7000, 860  # those of PathVQA's test set are 6,719 and 858
RUNS = 16  # on the page that compares them: four data sets, two versions, two modes
LISTED = "document.getElementById('questions')?.dataset.shown"
PICTURED = (
    "document.getElementById('evidence').scrollIntoView() || "
    "[...document.querySelectorAll('#questions img')].some(image => image.naturalWidth)"
)
READ = "document.readyState === 'complete' && document.querySelector('svg') !== null"
LINES = {
    "floor": 0.35,
    "untrained": 0.3,
    "sft": 0.6,
    "dpo": 0.62,
    "blank_image": 0.38,
    "shuffled_image": 0.37,
}
_ENGLISH = (
    ("Is there a mass in the {} lobe?", ("Yes", "No"), "closed"),
    ("Which organ is abnormal in the {} view?", ("Lung", "Liver", "Left kidney", "Heart"), "open"),
    ("What does the {} region show?", ("Pleural effusion", "A fracture of the rib", "Edema"), "open"),
)
_CHINESE = (
    ("图像的{}侧是否存在肿块？", ("是", "否"), "closed"),
    ("{}侧显示的是哪个器官？", ("肺", "肝脏", "左肾"), "open"),
)
_TEXT = (
    "the image shows an axial section with increased density beside a region that may be fluid so that I look at its "
    "borders compare both sides and consider an effusion a mass or an artefact before I answer the question"
)
_WORDS = _TEXT.split()


def rows(questions: int, images: int, words: int, seed: int = 0) -> dict[str, list[Prediction]]:
    """Predictions of all lines; the untrained model's thoughts are of about `words` words, others' of a tenth."""
    draw = random.Random(seed)
    made: dict[str, list[Prediction]] = {line: [] for line in LINES}
    for number in range(questions):
        chinese = draw.random() < 0.2
        text, answers, kind = draw.choice(_CHINESE if chinese else _ENGLISH)
        image, gold = number * images // questions, draw.choice(answers)
        question_type = draw.choice(("Organ", "Abnormality", "Position")) if chinese else ""
        organ, modality = draw.choice(("Lung", "Liver", "Heart", "")), draw.choice(("CT", "MRI", "X-Ray"))
        for line, share in LINES.items():
            answer = gold if draw.random() < share else draw.choice(answers)
            length = words if line == "untrained" else words // 10
            thought = " ".join(draw.choices(_WORDS, k=max(1, round(draw.gauss(length, length / 4)))))
            told = f"<think>{thought}</think><answer>{answer}</answer>"
            shown = (image + 1) % images if line == "shuffled_image" else image
            unread = line == "untrained" and draw.random() < 0.1
            made[line].append(
                {
                    "id": f"made-{number}",
                    "stage": line,
                    "source": "slake" if chinese else "pathvqa",
                    "image_id": f"{image}",
                    "linked_id": "",
                    "language": "zh" if chinese else "en",
                    "answer_type": kind,
                    "question_type": question_type,
                    "organ": organ,
                    "modality": modality,
                    "question": text.format(number % 97),
                    "gold": gold,
                    "text": answer if line == "floor" else thought if unread else told,
                    "answer": None if unread else answer,
                    "truncated": unread,
                    "forced": False,
                    "repeated": False,
                    "tokens": 0 if line == "floor" else length,
                    "seconds": 0.1,
                    "image": f"{shown}.png",
                }
            )
    return made


@cache
def encoded(name: str) -> bytes:
    """A JPEG with as much detail as a scan has."""
    draw = np.random.default_rng(int(Path(name).stem))
    noise = Image.fromarray(draw.integers(0, 256, (96, 96), dtype=np.uint8))
    smooth = noise.resize((512, 512), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    buffer = io.BytesIO()
    Image.blend(smooth, Image.effect_noise((512, 512), 30), 0.3).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def picture(name: str) -> Image.Image:
    """The picture, decoded."""
    return Image.open(io.BytesIO(encoded(name))).convert("RGB")


def evaluation(lines: analysis.Lines, said: analysis.Verdicts, leaked: Sequence[str]) -> Evaluation:
    """The evaluation of made answers; DPO's is the final model."""
    default = protocols.DEFAULT
    shares = {
        line: protocols.breakdown_of(found, said[line][default.NAME], default.NUMBERS)
        for line, found in lines.items()
    }
    found = analysis.analyse(lines, "dpo", leaked, protocols.MODULES, said)
    gain = found["comparisons"]["dpo over sft"]
    step = {"stage": "dpo", "over": "sft", "gain": gain, "taken": True, "beyond_noise": False, "text": "made"}
    whole: dict[str, Any] = {
        "run": "made_4.1v_thinking",
        "final_stage": "dpo",
        "data_fingerprint": "0123456789abcdef",
        "model": {"version": "4.1v", "selection": {"stage": "dpo", "steps": [step]}},
        "stages": {line: shares[line] for line in ("untrained", "sft", "dpo")},
        "floor": {"question_only": shares["floor"]},
        "ablation": {line: shares[line] for line in ("blank_image", "shuffled_image")},
        **found,
        "cost": {"sft_seconds": 1, "dpo_seconds": 1, "eval_seconds": 1, "examples_per_second": 1},
    }
    checked: Evaluation = whole  # type: ignore[assignment]
    return checked


def write(
    path: Path, lines: dict[str, list[Prediction]], report: Path | None = None, runs: int = RUNS
) -> dict[str, float]:
    """Write the page of these predictions, and at `report` that of many such runs; returns the seconds of each part."""
    names = sorted({row["image"] for found in lines.values() for row in found})
    for name in names:
        encoded(name)  # no part of what is measured
    leaked = ["slake/0", "pathvqa/1"]
    done: dict[str, Any] = {}
    seconds = {}
    steps: dict[str, Callable[[], Any]] = {
        "verdicts": lambda: analysis.verdicts(lines, protocols.MODULES, terminology.load()),
        "analysis": lambda: evaluation(lines, done["verdicts"], leaked),
        "pictures": lambda: thumbnails(names, picture),
        "packing": lambda: evidence.pack(
            lines,
            done["verdicts"],
            rendering.LINES,
            clusters(lines["floor"]).tolist(),
            leaked,
            list(done["pictures"].uris),
        ),
        "page": lambda: evaluation_page.evaluation_page(
            path,
            done["analysis"],
            protocols.MODULES,
            evaluation_page.Evidence(done["packing"], done["pictures"]),
            {},
        ),
    }
    if report:
        steps["report"] = lambda: write_report(report, done["analysis"], runs)
    for name, step in steps.items():
        start = time.process_time()
        done[name] = step()
        seconds[name] = round(time.process_time() - start, 2)
    return seconds


def write_report(path: Path, evaluation: Evaluation, runs: int) -> None:
    """The page that compares `runs` runs, all of this evaluation, with curves of 200 points."""
    curve = [{"step": step, "loss": 2 / (1 + step)} for step in range(200)]
    training = {"method": "lora", "base_model": "made", "train_rows": 7000, "steps": 200, "seconds": 100.0}
    training |= {"examples_per_second": 70.0, "final_loss": 0.01, "curve": curve}
    plain = {key: value for key, value in evaluation["model"].items() if not isinstance(value, dict)}
    shown: list[rendering.ReportedRun] = [
        {
            "run": f"made{number}_4.1v_thinking",
            "evaluation": {**evaluation, "run": f"made{number}_4.1v_thinking", "model": plain},
            "sft": training,
            "dpo": training,
            "validation": None,
            "links": {"evaluation": f"../eval/made{number}/evaluation.html"},
        }
        for number in range(runs)
    ]
    rendering.report_page(path, shown)


def opened(
    path: Path, times: int, until: str = LISTED, then: str = "", slowdown: float = 1
) -> dict[str, list[float]]:
    """Seconds from the navigation until `until` is true, in a browser that is running.

    `main_thread` is the time that the page's thread computed in them: the machine's other work does not count. `then`
    is waited for besides. `slowdown` is the browser's own brake on the page's thread.
    """
    found: dict[str, list[float]] = {"wall": [], "main_thread": [], **({"then": []} if then else {})}
    with browser() as tab:
        tab.call("Performance.enable", timeDomain="threadTicks")
        tab.call("Emulation.setCPUThrottlingRate", rate=slowdown)
        for _ in range(times):
            start = time.monotonic()
            tab.open(path)
            tab.wait(f"location.protocol === 'file:' && {until}")
            found["wall"].append(round(time.monotonic() - start, 2))
            metrics = {
                metric["name"]: metric["value"] for metric in tab.call("Performance.getMetrics")["metrics"]
            }
            found["main_thread"].append(round(metrics["TaskDuration"], 2))
            if then:
                tab.wait(then)
                found["then"].append(round(time.monotonic() - start, 2))
            tab.call("Page.navigate", url="about:blank")
        assert not tab.problems, tab.problems
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--words", type=int, default=250, help="of an untrained model's thought")
    parser.add_argument("--runs", type=int, default=RUNS, help="on the page that compares them")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument(
        "--slowdown", type=float, default=4, help="of the page's thread, in a second measurement"
    )
    parser.add_argument("--keep", type=Path, help="write the page here, and report.html beside it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "evaluation.html"
        report = path.with_name("report.html")
        made = rows(options.questions, options.images, options.words)
        seconds = write(path, made, report, options.runs)
        result = {
            "questions": options.questions,
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "cpu_seconds": seconds,
            "opened_seconds": opened(path, options.times, then=PICTURED),
            "opened_seconds_slowed": opened(path, options.times, then=PICTURED, slowdown=options.slowdown),
            "report": {
                "runs": options.runs,
                "megabytes": round(report.stat().st_size / 1e6, 1),
                "opened_seconds": opened(report, options.times, READ),
                "opened_seconds_slowed": opened(report, options.times, READ, slowdown=options.slowdown),
            },
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
