"""Results in print: each number has a protocol, a split and a source, and stands beside its own kind only."""

from collections import Counter

import pytest

from workflow_scripts.datasets import readers
from workflow_scripts.evaluation.protocols import PROTOCOLS
from workflow_scripts.evaluation.protocols.judge import Judge
from workflow_scripts.evaluation.published import beside, table

KNOWN = {**PROTOCOLS, Judge.NAME: Judge}


def questions(n, closed, language="en"):
    return [
        {"language": language, "answer_type": "closed" if number < closed else "open"} for number in range(n)
    ]


@pytest.mark.parametrize("results", table().results, ids=lambda results: results.source[:30])
def test_each_number_has_its_protocol_split_and_source(results):
    assert "https://" in results.source
    assert bool(results.judge) == (results.protocol == Judge.NAME)
    known = {"accuracy", *KNOWN[results.protocol].NUMBERS}
    assert results.numbers and results.numbers.keys() <= table().splits.keys()
    for models in results.numbers.values():
        for model, numbers in models.items():
            assert model and numbers and numbers.keys() <= known
            assert all(1 < value < 100 for value in numbers.values()), "in per cent"


def test_no_number_stands_twice_in_one_source():
    places = Counter(
        (results.source, results.protocol, split, model)
        for results in table().results
        for split, models in results.numbers.items()
        for model in models
    )
    assert set(places.values()) == {1}


def test_only_the_same_protocol_split_and_judge_have_numbers_in_print():
    english = questions(1061, 416)
    shown = list(beside("llava_med", "slake", english))
    assert {row["model"] for row in shown} == {"LLaVA-Med (BioMedCLIP)", "LLaVA-Tri"}
    assert {row["split"] for row in shown} == {"slake-en-test"}
    assert shown[0]["numbers"] == {"open_recall": 87.11, "closed_accuracy": 86.78}
    for protocol, reader, rows in [
        ("strict", "slake", english),
        ("llava_med", "rad", english),
        ("llava_med", "slake", english[1:]),
        ("llava_med", "slake", questions(1061, 415)),
        ("llava_med", "slake", questions(1061, 416, "zh")),
        ("llava_med", "slake", []),
        ("vqa_bleu_f1", "rad", questions(451, 272)),  # MedGemma's is another split of the same size
    ]:
        assert list(beside(protocol, reader, rows)) == []


def test_a_judged_number_stands_beside_the_same_judge_only():
    both = [*questions(1061, 416), *questions(1033, 400, "zh")]
    assert list(beside("judge", "slake", both, "gpt-4.1-2025-04-14"))
    assert list(beside("judge", "slake", both, "Qwen3-32B")) == list(beside("judge", "slake", both)) == []


@pytest.mark.parametrize(
    ("split", "folder", "language"),
    [
        ("slake-en-test", "slake/Slake1.0", "en"),
        ("slake-test", "slake/Slake1.0", ""),
        ("rad-test", "vqa_rad", ""),
        ("pathvqa-test", "pathvqa", ""),
    ],
)
def test_a_split_has_as_many_questions_as_the_real_files(realdata, split, folder, language):
    stated = table().splits[split]
    rows = [
        row
        for row in readers.READERS[stated.reader](realdata / folder)
        if row.split == "test" and row.language == (language or row.language)
    ]
    closed = sum(row.answer_type == "closed" for row in rows)
    assert (stated.questions, stated.closed or closed) == (len(rows), closed)
    assert set(stated.languages) == {row.language for row in rows}
