"""The pages: whole without any other file, safe with any text, and true to what they are given."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from workflow_scripts.evaluation.protocols import breakdown
from workflow_scripts.pages import rendering, thumbnails

HOSTILE = '<script>alert("x")</script>'
URI = thumbnails.thumbnail(Image.new("RGB", (32, 32), "gray"))


# Of Linux, Adobe's name for the same, macOS and Windows.
CHINESE_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei")
VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """The elements of a page; complains where one is closed out of turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self._open = [], [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def check(path):
    """The page's text, after making sure that it stands alone and that no data became markup."""
    text = path.read_text("utf-8")
    outline = Outline(text)
    assert not {"script", "link", "iframe", "object"} & set(outline.tags)
    assert all(value.startswith("data:image/jpeg") for name, value in outline.attributes if name == "src")
    assert "url(" not in text and "@import" not in text
    assert "prefers-color-scheme" in text and 'name="viewport"' in text
    assert all(f'"{font}"' in text for font in CHINESE_FONTS)
    return text


def predictions():
    answers = {"untrained": None, "sft": "No, there is not.", "dpo": "Yes", "blank_image": "No"}
    return [
        {
            "id": "rad-1",
            "source": "rad",
            "image_id": "synpic1",
            "language": "en",
            "answer_type": "closed",
            "question": f"Is there a 肿块 {HOSTILE}?",
            "gold": "yes",
            "stage": stage,
            "text": f"<answer>{answer}</answer>{HOSTILE}",
            "answer": answer,
            "truncated": answer is None,
            "image": URI,
        }
        for stage, answer in answers.items()
    ]


COVERAGE = {"split": "test", "set": HOSTILE, "language": "zh", "rows": 1033, "known": 1028}


def validation(passed=True):
    return {
        "run": "slake_4.1v_thinking",
        "passed": passed,
        "splits": "official",
        "counts": {
            split: {
                "rows": 20000,
                "images": 642,
                "languages": {"en": 15000, "zh": 5000},
                "sources": {"slake": 20000},
                "closed": 8000,
                "open": 12000,
                "closed_answers": {"yes": 4000, "no": 3000, "other": 1000},
                "question_types": {HOSTILE: 15000, "all others": 5000},
            }
            for split in ("train", "test")
        },
        "read": 40010,
        "kept": 40000,
        "copies": 0,
        "dropped": {"duplicate": 10},
        "errors": [] if passed else [{"kind": "image missing", "count": 2, "examples": [HOSTILE]}],
        "warnings": [{"kind": "contradicting answers", "count": 3, "examples": []}],
        "token_lengths": {"max": 90, "mean": 40.0, "limit": 80, "histogram": [[0, 50, 7], [50, 100, 3]]},
        "answers": {
            "distinct": 2,
            "top": [["不是", 4], [HOSTILE, 2]],
            "test_coverage": 0.975,
            "coverage": [COVERAGE],
        },
        "leaks": [
            {
                "held": "train",
                "tested": "test",
                "columns": [{"set": HOSTILE, "language": "en", "images": 180, "rows": 2094}],
                "rows": [
                    {"set": HOSTILE, "language": "en", "cells": [{"images": 142, "rows": 1517, "exact": 3}]},
                    {"set": "all", "language": "all", "cells": [{"images": 0, "rows": 0, "exact": 0}]},
                ],
            },
            {"held": "validation", "tested": "test", "columns": [], "rows": []},
        ],
        "near_duplicates": {"most_bits": 12, "pairs": 73},
        "near_duplicate_pictures": [
            {
                "bits": 3,
                "names": [HOSTILE, "../../raw/b.png"],
                "splits": ["train", "test"],
                "images": [URI, URI],
            }
        ],
        "samples": [
            {
                "images": [URI, URI],
                "image_tokens": [729, 16],
                "id": "slake-en-1",
                "prompt": HOSTILE,
                "target": ["<answer>", "肺", "</answer>"],
                "target_tokens": 4,
                "split": "train",
                "source": "slake",
            }
        ],
    }


def training(stage):
    curve = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": float("nan")},
        {"step": 3, "loss": 1.0},
        {"step": 4},
    ]
    return {
        "stage": stage,
        "method": "lora",
        "base_model": "tiny",
        "train_rows": 20000,
        "steps": 4,
        "seconds": 3725.0,
        "examples_per_second": 5.0,
        "final_loss": 1.0,
        "curve": curve,
    }


def run(name, **changes):
    rows = predictions()
    stages = {row["stage"]: breakdown([row]) for row in rows}
    return {
        "run": name,
        "evaluation": {
            "run": name,
            "final_stage": "dpo",
            "data_fingerprint": "0123456789abcdef",
            "model": {"version": HOSTILE},
            "stages": {stage: stages[stage] for stage in ("untrained", "sft", "dpo")},
            "floor": {"question_only": stages["dpo"]},
            "ablation": {"blank_image": {"overall": stages["blank_image"]["overall"]}},
            "cost": {"sft_seconds": 1, "dpo_seconds": 1, "eval_seconds": 42, "examples_per_second": 1},
        },
        "sft": training("sft"),
        "dpo": training("dpo"),
        "validation": validation(),
        "costs": [dict.fromkeys(("stage", "attempts", "hours"), "at least 4.25")],
        "links": {"evaluation": "../eval/evaluation.html", "validation": "../data/validation.html"},
        **changes,
    }


def test_validation_page(tmp_path):
    rendering.validation_page(tmp_path / "page.html", validation())
    text = check(tmp_path / "page.html")
    assert "✓ Passed" in text and "20,000" in text and "97.5 %" in text and "不是" in text
    assert "<mark>&lt;answer&gt;</mark><mark>肺</mark><mark>&lt;/answer&gt;</mark>" in text
    assert "729 + 16 image tokens" in text and "4 trained tokens" in text
    assert "142 of 180" in text and "1,517 rows, 3 exact" in text and "--share: 0.789" in text
    assert "73 pairs" in text and "The nearest 1; near_duplicates.jsonl lists all" in text
    assert "4,000 : 3,000 : 1,000" in text and "75.0" in text and "99.5" in text


def test_validation_page_without_decoded_images(tmp_path):
    summary = validation() | {"near_duplicates": None, "near_duplicate_pictures": []}
    rendering.validation_page(tmp_path / "page.html", summary)
    assert "Not looked for: data.decode_images is off" in check(tmp_path / "page.html")


def test_validation_page_of_a_set_with_errors(tmp_path):
    rendering.validation_page(tmp_path / "page.html", validation(passed=False))
    text = check(tmp_path / "page.html")
    assert "✗ Failed" in text and "image missing" in text


def test_report_page(tmp_path):
    rendering.report_page(tmp_path / "page.html", [run("rad_4.1v_base"), run("slake_4.1v_base")])
    text = check(tmp_path / "page.html")
    assert "strict protocol" in text and "8,000 and 12,000" in text and "1 h 02 min" in text
    assert text.count("loss by step") == 4 and "NaN" not in text
    assert 'href="../eval/evaluation.html"' in text and 'href="#rad_4.1v_base"' in text
    assert 'href="../eval/evaluation.html#line=dpo&amp;verdict=right"' in text
    assert "<th>GPU hours</th>" in text and "<td>at least 4.25</td>" in text


def test_every_number_in_a_table_of_the_report_is_a_link_or_says_why_not(tmp_path):
    two = [run("rad_4.1v_base"), run("rad_4.5v_base")]
    rendering.report_page(tmp_path / "page.html", two)
    text = check(tmp_path / "page.html")
    of_questions = re.sub(r'<table class="costs">.*?</table>', "", text, flags=re.S)  # the rest is of jobs
    cells = re.findall(r"<td[^>]*>(.*?)</td>", of_questions, re.S)
    bare = [re.sub(r'<a href="[^"]+#[^"]+">.*?</a>', "", cell, flags=re.S) for cell in cells]
    bare = [re.sub(r'<span class="range">.*?</span>', "", cell) for cell in bare]
    assert len(cells) > 50 and [cell for cell in bare if re.search(r"\d", cell)] == []
    assert "whose page is not there" not in text
    rendering.report_page(tmp_path / "bare.html", [run("rad_4.1v_base", links={})])
    assert "but for runs whose page is not there" in check(tmp_path / "bare.html")


def test_the_report_marks_a_try(tmp_path):
    tried = run("rad_4.1v_base")
    tried["evaluation"]["limit"] = 32
    rendering.report_page(tmp_path / "page.html", [tried, run("slake_4.1v_base")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("(a try)") == 1 and text.count("at most 32 rows") == 1


def test_report_page_of_a_run_with_one_stage_and_nothing_else(tmp_path):
    bare = run("rad_4.1v_base", sft=None, dpo=None, validation=None, costs=[], links={})
    evaluation = bare["evaluation"]
    evaluation |= {"final_stage": "sft", "ablation": {}, "cost": {}}
    evaluation["stages"] = {"sft": evaluation["stages"]["sft"]}
    rendering.report_page(tmp_path / "page.html", [bare])
    text = check(tmp_path / "page.html")
    assert "loss by step" not in text and "#line=" not in text and "GPU hours" not in text


def test_report_page_without_runs(tmp_path):
    rendering.report_page(tmp_path / "page.html", [])
    check(tmp_path / "page.html")


@pytest.mark.parametrize(
    "seconds, said", [(None, "–"), (0.25, "0.25 s"), (42, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_duration(seconds, said):
    assert rendering.duration(seconds) == said
