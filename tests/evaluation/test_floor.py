"""The question-only prior: its levels by hand, and the known floors of the real sets."""

import pickle

import pytest

from workflow_scripts.base import files
from workflow_scripts.evaluation.floor import question_only
from workflow_scripts.evaluation.protocols.strict import correct, metrics


def row(question, answer, answer_type="open", language="en", source="slake"):
    return {
        "question": question,
        "answer": str(answer),
        "answer_type": answer_type.strip().lower(),
        "language": language,
        "source": source,
    }


def test_each_level_stands_in_for_the_one_before():
    train = [
        row("What organ is this?", "Liver"),
        row("what organ is this", "liver"),
        row("What organ is this?", "Lung"),
        row("What organ is largest?", "Lung"),
        row("What organ is lowest?", "Lung"),
        row("Is it healthy?", "No", "closed"),
        row("图中有肺吗?", "有", "closed", "zh"),
    ]
    asked = [
        row("What organ is this?", ""),
        row("What organ is red?", ""),
        row("Does it bleed?", "", "closed"),
        row("图中有心脏吗?", "", "closed", "zh"),
        row("肺在哪里?", "", "open", "zh"),
        row("Where?", "", "open", "en", "rad"),
        row("Ou?", "", "open", "fr", "other"),
    ]
    assert question_only(train, asked) == ["Liver", "Lung", "No", "有", "有", "Lung", "Lung"]
    assert question_only([], asked[:1]) == [""]


def rad(realdata):
    rows = files.read_json(realdata / "vqa_rad/VQA_RAD Dataset Public.json")
    tests = [each["phrase_type"].startswith("test_") for each in rows]
    made = [row(each["question"], each["answer"], each["answer_type"], "en", "rad") for each in rows]
    return [
        [each for each, is_test in zip(made, tests, strict=True) if is_test is wanted]
        for wanted in (False, True)
    ]


def slake(realdata, language):
    return [
        [
            row(each["question"], each["answer"], each["answer_type"], language)
            for each in files.read_json(realdata / f"slake/Slake1.0/{split}.json")
            if each["q_lang"] == language
        ]
        for split in ("train", "test")
    ]


class NoGlobals(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def pathvqa(realdata):
    """The rows without the exact duplicates, which the figures count on 6,719 test rows."""
    halves = []
    for split in ("train", "test"):
        with open(realdata / f"pathvqa/pvqa/qas/{split}_vqa.pkl", "rb") as file:
            rows = NoGlobals(file).load()
        unique = {(each["img_id"], each["sent"], *each["label"]): each for each in rows}
        halves.append(
            [
                row(
                    question, answer, "closed" if each["answer_type"] == "yes/no" else "open", "en", "pathvqa"
                )
                for (_, question, answer), each in unique.items()
            ]
        )
    return halves


def floor(halves):
    train, test = halves
    answers = question_only(train, test)
    return [
        {**each, "gold": each["answer"], "answer": answer, "truncated": False}
        for each, answer in zip(test, answers, strict=True)
    ]


def percents(rows):
    found = metrics(rows)
    return [100 * found[key] for key in ("closed_accuracy", "open_exact_match", "accuracy")]


def test_floor_of_rad(realdata):
    rows = floor(rad(realdata))
    assert len(rows) == 451
    assert percents(rows) == pytest.approx([52.6, 11.7, 36.4], abs=0.5)


def test_floor_of_english_slake(realdata):
    rows = floor(slake(realdata, "en"))
    assert len(rows) == 1061
    assert percents(rows) == pytest.approx([66.6, 46.7, 54.5], abs=0.5)


def test_floor_of_chinese_slake(realdata):
    """The figures compare strings (没有 is not 不是); by polarity the closed floor is three points higher."""
    rows = floor(slake(realdata, "zh"))
    closed = [each for each in rows if each["answer_type"] == "closed"]
    same_string = [correct(each["gold"], each["answer"], closed=False) for each in closed]
    assert 100 * sum(same_string) / len(closed) == pytest.approx(62.1, abs=0.5)
    assert percents(rows) == pytest.approx([65.2, 51.7, 57.4], abs=0.5)


def test_floor_of_pathvqa(realdata):
    rows = floor(pathvqa(realdata))
    assert len(rows) == 6719
    assert percents(rows) == pytest.approx([81.8, 13.7, 47.8], abs=0.5)
