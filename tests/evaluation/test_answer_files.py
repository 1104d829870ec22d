"""Answer files as each project writes them, and which question each of their rows belongs to."""

import csv
import json

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation import answer_files
from workflow_scripts.evaluation.answer_files import GivenAnswer
from workflow_scripts.evaluation.matching import match


def question(number, text, gold, image="xmlab102", language="en", source="slake"):
    return {
        "id": f"{source}-{language}-{number}",
        "source": source,
        "image_id": image,
        "question": text,
        "language": language,
        "answer_type": "open",
        "answer": gold,
    }


QUESTIONS = [
    question(11934, "What modality is used to take this image?", "X-Ray"),
    question(11935, "Which part of the body does this image belong to?", "Chest"),
    question(12007, "What modality is used to take this image?", "MRI", "xmlab121"),
    question(12008, "What modality is used to take this image?", "MRI", "xmlab130"),
    question(12995, "这是什么成像方式？", "X光", language="zh"),
]

# Shapes of: llava/eval/model_vqa.py; utils/base_dataset.py with utils/SLAKE/SLAKE.py; lmms_eval/loggers/
# evaluation_tracker.py with tasks/slake/utils.py; vlmeval/inference.py with smp/file.py.
LLAVA_MED = [
    {
        "question_id": 11934,
        "prompt": "What modality is used to take this image?\n<image>",
        "text": "X-ray",
        "answer_id": "Yz3cWvPgVjGqfxkDg2hYHw",
        "model_id": "llava-med-v1.5-mistral-7b",
        "metadata": {},
    },
    {
        "question_id": 12008,
        "prompt": "What modality is used to take this image?",
        "text": "CT",
        "answer_id": "a",
        "model_id": "llava-med-v1.5-mistral-7b",
        "metadata": {},
    },
]
MEDEVALKIT = [
    {
        "lang": "en",
        "answer_type": "OPEN",
        "answer": gold,
        "question": "What modality is used to take this image?",
        "prompt": "What modality is used to take this image?\nPlease answer the question concisely.",
        "response": response,
        "correct": False,
        "metrics": {"em": False, "bleu1": 0.0},
    }
    for gold, response in [("X-Ray", "\\boxed{X-ray}"), ("MRI", "MRI, first"), ("MRI", "MRI, second")]
]
LMMS_EVAL = [
    {
        "doc_id": 0,
        "target": "X-Ray",
        "filtered_resps": "X-ray",
        "token_counts": [{"input_tokens": 300, "output_tokens": 3}],
        "doc_hash": "0f3c",
        "slake_accuracy": {
            "id": "11934",
            "prediction": "X-ray",
            "prediction_normalized": "xray",
            "target": "X-Ray",
            "target_normalized": "xray",
            "language": "en",
            "answer_type": "open",
            "is_correct": True,
        },
        "input": "What modality is used to take this image?\nAnswer the question using a single word or phrase.",
    },
    {
        "doc_id": 1,
        "target": "Chest",
        "resps": ["<think>It is a chest.</think>Chest"],
        "filtered_resps": ["Chest"],
        "doc_hash": "0f3d",
        "slake_accuracy": {"id": "11935", "prediction": "Chest", "target": "Chest"},
        "input": "Which part of the body does this image belong to?\nAnswer the question using a single word or phrase.",
    },
]
VLMEVALKIT = [
    {
        "index": 0,
        "question": "What modality is used to take this image?",
        "answer": "MRI",
        "category": "modality",
        "prediction": "MRI",
    },
    {
        "index": 1,
        "question": "Which part of the body does this image belong to?",
        "answer": "Chest",
        "category": "organ",
        "prediction": 'The "chest",\nprobably',
    },
]
PREDICTIONS = [
    {
        "id": "slake-zh-12995",
        "source": "slake",
        "image_id": "xmlab102",
        "language": "zh",
        "answer_type": "open",
        "question": "这是什么成像方式？",
        "gold": "X光",
        "stage": stage,
        "text": "<think>…</think>X光" if read else "<think>…",
        "answer": read,
        "truncated": read is None,
        "image": "source.jpg",
    }
    for stage, read in [("sft", "X光"), ("dpo", None)]
]
ANSWERS = [
    {
        "id": "slake-en-11934",
        "source": "slake",
        "split": "test",
        "text": "<answer>X-Ray</answer>",
        "truncated": False,
        "forced": False,
        "repeated": False,
        "tokens": 5,
        "seconds": 0.1,
    }
]


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def as_json(path, rows):
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=4), "utf-8")
    return path


def as_table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        delimiter = answer_files.TABLES[path.suffix]
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_xlsx(path, rows):
    book = openpyxl.Workbook()
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(row)
    book.save(path)
    return path


def matched(path):
    found = match(QUESTIONS, answer_files.read(path).answers)
    return {asked["id"]: answer for asked, answer in found.pairs}, found


def test_llava_med_is_read_by_its_questions_ids(tmp_path):
    path = as_jsonl(tmp_path / "answers.jsonl", LLAVA_MED)
    by_id, found = matched(path)
    assert answer_files.read(path).layout == "LLaVA-Med"
    assert {name: answer.text for name, answer in by_id.items()} == {
        "slake-en-11934": "X-ray",
        "slake-en-12008": "CT",
    }
    assert found.by == {"id": 2} and found.unmatched == []
    assert found.unanswered == ["slake-en-11935", "slake-en-12007", "slake-zh-12995"]


def test_medevalkit_is_read_by_question_and_gold_in_its_order(tmp_path):
    path = as_json(tmp_path / "results.json", MEDEVALKIT)
    by_id, found = matched(path)
    assert answer_files.read(path).layout == "MedEvalKit"
    assert {name: answer.text for name, answer in by_id.items()} == {
        "slake-en-11934": "\\boxed{X-ray}",
        "slake-en-12007": "MRI, first",
        "slake-en-12008": "MRI, second",
    }
    assert found.by == {"question and gold": 3}


def test_lmms_eval_is_read_by_the_ids_of_its_metrics_and_its_filters_are_kept(tmp_path):
    path = as_jsonl(tmp_path / "20260801_101010_samples_slake.jsonl", LMMS_EVAL)
    by_id, found = matched(path)
    assert answer_files.read(path).layout == "lmms-eval" and found.by == {"id": 2}
    whole, filtered = by_id["slake-en-11934"], by_id["slake-en-11935"]
    assert (whole.text, whole.states_answer) == ("X-ray", False)
    assert (filtered.text, filtered.answer) == ("<think>It is a chest.</think>Chest", "Chest")
    assert filtered.states_answer


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("m_SLAKE.xlsx", as_xlsx),
        ("m_SLAKE.tsv", as_table),
        ("m_SLAKE.csv", as_table),
        ("m_SLAKE.json", as_json),
    ],
)
def test_vlmevalkit_is_read_by_question_and_gold_whatever_its_index(tmp_path, name, write):
    path = write(tmp_path / name, VLMEVALKIT)
    by_id, found = matched(path)
    assert answer_files.read(path).layout == "VLMEvalKit" and found.by == {"question and gold": 2}
    assert by_id["slake-en-12007"].text == "MRI"
    assert by_id["slake-en-11935"].text == 'The "chest",\nprobably'


def test_our_predictions_are_read_with_what_was_read_of_them_and_by_stage(tmp_path):
    path = as_jsonl(tmp_path / "predictions.jsonl", PREDICTIONS)
    sft, dpo = answer_files.read(path).answers
    assert (sft.group, sft.answer, sft.states_answer, sft.truncated) == ("sft", "X光", True, False)
    assert (dpo.group, dpo.answer, dpo.states_answer, dpo.truncated) == ("dpo", None, True, True)
    assert match(QUESTIONS, [dpo]).by == {"id": 1}


def test_our_answers_are_left_to_the_reader(tmp_path):
    (found,) = answer_files.read(as_jsonl(tmp_path / "sft.original.jsonl", ANSWERS)).answers
    assert (found.id, found.split, found.states_answer) == ("slake-en-11934", "test", False)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "no answers in it"),
        ('{"a": 1}\n', "keys of no known layout.*LLaVA-Med: question_id, text"),
        ('{"question_id": 1, "text": "a"}\n{"question_id": 2}\n', "row 2: no 'text', which LLaVA-Med writes"),
        ('{"question_id": 1, "text": "a"}\n[]\n', "row 2: not a JSON object"),
        ('{"question_id": 1, "text": "a"}\n{"quest', "row 2: not a JSON object"),
    ],
)
def test_what_is_no_answer_file_is_an_error_of_one_line(tmp_path, content, error):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=error) as caught:
        answer_files.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.jsonl", "none.xlsx", "none.csv"])
def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path, name):
    with pytest.raises(UserError, match=r"none\.\w+: no such file"):
        answer_files.read(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.sampled_from([LLAVA_MED, MEDEVALKIT, LMMS_EVAL, VLMEVALKIT, PREDICTIONS, ANSWERS]), st.data())
def test_whatever_the_values_are_a_row_is_read(tmp_path_factory, rows, data):
    row = {key: data.draw(JSON) for key in rows[0]}
    path = as_jsonl(tmp_path_factory.mktemp("odd") / "a.jsonl", [row])
    (answer,) = answer_files.read(path).answers
    assert isinstance(answer.text, str) and len(match(QUESTIONS, [answer]).pairs) <= 1


MODALITY = QUESTIONS[0]["question"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (GivenAnswer("", id="slake-en-12007"), "slake-en-12007"),
        (GivenAnswer("", id="12007", question=MODALITY), "slake-en-12007"),
        (GivenAnswer("", id="12007", question="Which organ?"), None),
        (GivenAnswer("", id="12007", source="rad"), None),
        (GivenAnswer("", id="11934", question=f"<image>\n{MODALITY}\nAnswer in one word."), "slake-en-11934"),
        (GivenAnswer("", question=MODALITY, image="imgs/xmlab121/source.jpg"), "slake-en-12007"),
        (GivenAnswer("", question=MODALITY.upper(), image="XMLAB130"), "slake-en-12008"),
        (GivenAnswer("", question=MODALITY, image="xmlab999/source.jpg"), None),
        (GivenAnswer("", question=MODALITY, gold="mri"), "slake-en-12007"),
        (GivenAnswer("", question=MODALITY, gold="CT"), None),
        (GivenAnswer("", question=MODALITY), None),
        (GivenAnswer("", question=f"{QUESTIONS[1]['question']}\n<image>"), "slake-en-11935"),
        (GivenAnswer(""), None),
    ],
)
def test_an_answer_finds_its_question(answer, expected):
    found = match(QUESTIONS, [answer])
    assert [asked["id"] for asked, _ in found.pairs] == ([expected] if expected else [])


def test_what_finds_no_question_is_named_with_the_reason():
    twice = GivenAnswer("b", id="slake-en-11934", where="row 2")
    stray = GivenAnswer("c", question="Which organ?", where="row 3")
    found = match(QUESTIONS, [GivenAnswer("a", id="slake-en-11934", where="row 1"), twice, stray])
    assert [answer.text for _, answer in found.pairs] == ["a"]
    assert found.unmatched == [
        "row 2: 'slake-en-11934': answered already by row 1",
        "row 3: 'Which organ?': no such question",
    ]


def test_an_id_that_two_sets_share_is_none():
    both = [question(1, "Q?", "A"), question(1, "Q?", "A", source="rad")]
    assert match(both, [GivenAnswer("", id="1")]).pairs == []
    assert len(match(both, [GivenAnswer("", id="1", source="rad")]).pairs) == 1
