"""The data behind a page's questions: true to the rows, each text once, and bounded."""

import base64
import gzip
import json

import pytest

from benchmarks import pages
from workflow_scripts.datasets import terminology
from workflow_scripts.evaluation import analysis, protocols
from workflow_scripts.pages import evidence
from workflow_scripts.pages.rendering import LINES

HOSTILE = "</script><script>alert(1)</script>\u2028\u2029<!-- \ud800 肺"


@pytest.fixture(scope="module")
def made():
    lines = pages.rows(120, 12, 400)
    lines["sft"][3]["text"] = HOSTILE
    said = analysis.verdicts(lines, protocols.MODULES, terminology.load())
    return lines, said


def packed(made, **changes):
    lines, said = made
    labels = analysis.clusters(lines["floor"]).tolist()
    return evidence.pack(lines, said, LINES, labels, ["slake/0"], ["1.png", "2.png"], **changes)


def unpacked(found):
    parts = (found.questions, found.texts)
    return tuple(json.loads(gzip.decompress(base64.b64decode(part))) for part in parts)


def size(found):
    return len(found.questions) + len(found.texts)


def test_what_is_packed_is_what_was_predicted(made):
    lines, said = made
    found = packed(made)
    data, texts = unpacked(found)
    assert found.text_limit is None and list(data["lines"]) == list(LINES)
    for part in (data, texts):
        assert len(part["strings"]) == len(set(part["strings"]))
    for line, rows in lines.items():
        answers, long = data["answers"][line], texts["answers"][line]
        for place, row in enumerate(rows):
            if row["text"] != HOSTILE:
                assert texts["strings"][long["text"][place]] == row["text"]
            assert (
                None if answers["answer"][place] < 0 else data["strings"][answers["answer"][place]]
            ) == row["answer"]
            assert (place in answers["truncated"]) == row["truncated"]
            assert place not in answers["empty"] or row["text"] == HOSTILE
            assert (long["tokens"][place], long["seconds"][place]) == (row["tokens"], row["seconds"])
            picture = answers["picture"][place]
            assert picture == {"1.png": 0, "2.png": 1}.get(row["image"], -1)
        for name, verdicts in said[line].items():
            scores = [v.note if v.score is None else round(v.score, 4) for v in verdicts]
            assert answers["scores"][name] == scores
            assert [texts["strings"][why] for why in long["why"][name]] == [v.why for v in verdicts]
            assert data["numbers"][name] == list(long["numbers"][name])
            for number, column in long["numbers"][name].items():
                own = [v.scores.get(number) for v in verdicts]
                assert column == [value if value is None else round(value, 4) for value in own]
    facets = data["facets"]
    assert {"set", "language", "answer_type", "question_type", "leak"} <= set(facets)
    for place, row in enumerate(lines["floor"]):
        assert facets["set"]["names"][facets["set"]["of"][place]] == row["source"]
        leaked = (row["source"], row["image_id"]) == ("slake", "0")
        assert facets["leak"]["names"][facets["leak"]["of"][place]] == ("leaked" if leaked else "free")


def test_hostile_texts_are_whole_and_no_markup(made):
    found = packed(made)
    assert set(found.questions + found.texts) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    )
    _, texts = unpacked(found)
    text = texts["strings"][texts["answers"]["sft"]["text"][3]]
    assert text == HOSTILE.replace("\ud800", "?")


def test_texts_are_cut_where_the_page_has_no_room(made):
    whole = packed(made)
    found = packed(made, budget=size(whole) * 2 // 3)
    assert size(found) < size(whole) and found.text_limit
    _, data = unpacked(found)
    longest = max(len(data["strings"][text]) for text in data["answers"]["untrained"]["text"])
    assert longest <= found.text_limit + 5
    text = data["strings"][data["answers"]["untrained"]["text"][0]]
    assert text.endswith(made[0]["untrained"][0]["text"][-20:]) and " […] " in text
