"""The evaluation's shape and its terminal table."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

import workflow_scripts.evaluation
from workflow_scripts.base import versions
from workflow_scripts.evaluation.protocols import breakdown
from workflow_scripts.evaluation.statistics import comparisons
from workflow_scripts.evaluation.table import table

SCHEMA = json.loads(Path(workflow_scripts.evaluation.__file__).with_name("schema.json").read_text("utf-8"))


def stage(*answers):
    golds = [
        ("yes", "closed", "rad", "en"),
        ("left lung", "open", "slake", "en"),
        ("肺", "open", "slake", "zh"),
    ]
    return breakdown(
        {
            "gold": gold,
            "answer": answer,
            "answer_type": answer_type,
            "source": source,
            "language": language,
            "truncated": answer is None,
        }
        for (gold, answer_type, source, language), answer in zip(golds, answers, strict=True)
    )


@pytest.fixture
def evaluation():
    blank = stage("no", "lung", "肺")
    return {
        "run": "combined_4.1v_thinking",
        "final_stage": "dpo",
        "versions": versions.RESULTS,
        "data_fingerprint": "0123456789abcdef",
        "model": {"version": "4.1v"},
        "stages": {
            "untrained": stage(None, "lung", "肝"),
            "sft": stage("yes", "left-sided lung", "肺"),
            "dpo": stage("yes", "left lung", "肺"),
        },
        "floor": {"question_only": stage("yes", "lung", "肝")},
        "ablation": {"blank_image": {"overall": blank["overall"]}},
        "cost": {"sft_seconds": 3.5, "dpo_seconds": None, "eval_seconds": 1, "examples_per_second": 2},
    }


def test_a_made_evaluation_fits_the_schema(evaluation):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(evaluation, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "path, value",
    [
        (("final_stage",), "blank_image"),
        (("stages", "sft", "overall", "accuracy"), 73.3),
        (("stages", "sft", "overall", "bleu"), 0.1),
        (("stages", "sft", "languages"), None),
        (("stages",), {}),
        (("cost", "eval_seconds"), -1),
        (("seed",), 7),
    ],
)
def test_the_schema_refuses(evaluation, path, value):
    broken = copy.deepcopy(evaluation)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_table(evaluation):
    assert table(evaluation).splitlines() == [
        "combined_4.1v_thinking: accuracy in %, strict protocol, n = 3 questions, unreadable ones are wrong;",
        "  with 95 % intervals; terms: medical synonyms are right too",
        "                             all  closed   open    rad  slake  terms",
        "question-only floor         33.3   100.0    0.0  100.0    0.0   33.3",
        "before training              0.0     0.0    0.0    0.0    0.0    0.0",
        "after SFT                   66.7   100.0   50.0  100.0   50.0  100.0",
        "after DPO                  100.0   100.0  100.0  100.0  100.0  100.0",
        "DPO model on blank images   33.3     0.0   50.0      –      –   33.3",
    ]


@pytest.mark.parametrize(
    "names", [["pathvqa", "rad", "slake"], [f"a set of our hospital {n}" for n in range(9)]]
)
def test_a_table_with_intervals_is_no_wider_than_a_terminal(made_evaluation, names):
    made = json.loads(json.dumps(made_evaluation))
    jsonschema.validate(made, SCHEMA, cls=jsonschema.Draft202012Validator)
    made["model"]["asked"] = {"untrained": {}}
    for group in made["stages"].values():
        group["test_sets"] = dict.fromkeys(names, group["overall"])
    text = table(made)
    assert max(map(len, text.splitlines())) <= 100
    sft = made["groups"]["sft"]["overall"]["all"]["score"]
    assert (
        f"{100 * sft['value']:.1f} [{100 * sft['interval'][0]:.1f}, {100 * sft['interval'][1]:.1f}]" in text
    )
    assert all(name in text for name in names)
    gain = comparisons.verdict(made_evaluation["comparisons"]["dpo over sft"])
    assert f"DPO over SFT: {gain}" in " ".join(text.split())
    assert "noise" in text and "free of leaked images" in text and "show differences of" in text


def test_a_try_says_that_its_scores_mean_nothing(made_evaluation):
    tried = json.loads(json.dumps({**made_evaluation, "limit": 32}))
    jsonschema.validate(tried, SCHEMA, cls=jsonschema.Draft202012Validator)
    text = " ".join(table(tried).split())
    assert "(a try, limit 32)" in text and "at most 32 rows" in text and "say nothing" in text
    assert "a try" not in table(made_evaluation)


def test_table_without_the_stages_that_were_not_run(evaluation):
    del evaluation["stages"]["dpo"]
    evaluation |= {"final_stage": "sft", "ablation": {}}
    jsonschema.validate(evaluation, SCHEMA, cls=jsonschema.Draft202012Validator)
    labels = [line[:20].strip() for line in table(evaluation).splitlines()[3:]]
    assert labels == ["question-only floor", "before training", "after SFT"]
