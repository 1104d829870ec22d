"""What splits share: by hand on a few rows, and as published on the real annotations, whose images are absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.checks.leaks import Ledger
from workflow_scripts.datasets.readers import READERS


def ledger(rows):
    """A ledger of (split, set, language, image, question, answer, id)."""
    made = Ledger()
    for line, (split, source, language, image, question, answer, id) in enumerate(rows, start=1):
        record = {"source": source, "language": language, "question": question, "answer": answer, "id": id}
        made.add(split, line, record, [image], copy="#copy" in id)
    return made


def of_examples(examples):
    return ledger(
        (
            row.split,
            row.source,
            row.language,
            f"{row.source}/{row.image_id}",
            row.question,
            row.answer,
            row.id,
        )
        for row in examples
    )


def cell(matrix, held, tested):
    """The cell of (set, language) against (set, language), and the column that it counts in."""
    columns = [(column["set"], column["language"]) for column in matrix["columns"]]
    lines = {(line["set"], line["language"]): line["cells"] for line in matrix["rows"]}
    place = columns.index(tested)
    return lines[held][place], matrix["columns"][place]


ROWS = [
    ("train", "a", "en", "1", "q", "x", "t1"),
    ("train", "a", "zh", "2", "q", "x", "t2"),
    ("train", "b", "en", "1", "q", "x", "t3"),
    ("test", "a", "en", "1", "q", "x", "e1"),
    ("test", "a", "en", "1", "q", "y", "e2"),
    ("test", "a", "zh", "3", "q", "x", "e3"),
]


def test_the_matrix_counts_by_set_and_language():
    matrix = ledger(ROWS).matrix("train", "test")
    assert matrix["columns"] == [
        {"set": "a", "language": "en", "images": 1, "rows": 2},
        {"set": "a", "language": "zh", "images": 1, "rows": 1},
        {"set": "a", "language": "all", "images": 2, "rows": 3},
    ]
    shared, nothing = {"images": 1, "rows": 2, "exact": 1}, {"images": 0, "rows": 0, "exact": 0}
    assert [(line["set"], line["language"], line["cells"]) for line in matrix["rows"]] == [
        ("a", "en", [shared, nothing, shared]),
        ("a", "zh", [nothing, nothing, nothing]),
        ("a", "all", [shared, nothing, shared]),
        ("b", "en", [shared, nothing, shared]),
        ("all", "all", [shared, nothing, shared]),
    ]


def test_shared_images_are_named():
    made = ledger(ROWS)
    assert made.shared_images("train", "test") == ({"1"}, 2)
    assert made.shared_images("validation", "test") == (set(), 0)


def test_a_split_without_rows_gives_an_empty_matrix():
    matrix = ledger(ROWS).matrix("train", "validation")
    assert matrix["columns"] == [] and {tuple(line["cells"]) for line in matrix["rows"]} == {()}
    assert Ledger().matrix("train", "test")["rows"] == []


def test_repeats_are_told_with_their_places():
    rows = [
        ("train", "a", "en", "1", "q", "x", "t1"),
        ("train", "a", "en", "1", "q", "x", "t2"),
        ("train", "a", "en", "1", "q", "x", "t1#copy2"),
        ("test", "a", "en", "1", "q", "x", "t1"),
    ]
    made = ledger(rows)
    assert list(made.repeated_rows()) == [("train.jsonl:2", "train.jsonl:1")]
    assert list(made.repeated_ids()) == [("test.jsonl:4", "train.jsonl:1")]


def test_a_row_of_several_images_leaks_by_any_of_them():
    made = Ledger()
    for split, images in (("train", ["1", "2"]), ("test", ["3", "2"]), ("test", ["3"])):
        record = {"source": "a", "language": "en", "question": "q", "answer": "x", "id": "1"}
        made.add(split, 1, record, images)
    assert made.matrix("train", "test")["rows"][0]["cells"] == [{"images": 1, "rows": 1, "exact": 0}]


row = st.tuples(
    st.sampled_from(["train", "validation", "test"]), st.sampled_from("ab"), st.sampled_from(["en", "zh"]),
    st.sampled_from("12345"), st.sampled_from("pq"), st.sampled_from("xy"), st.just("id"),
)  # fmt: skip


@given(st.lists(row, max_size=40))
def test_the_matrix_is_what_sets_say(rows):
    matrix = ledger(rows).matrix("train", "test")

    def group(split, found):
        return [
            row for row in rows
            if row[0] == split and found["set"] in (row[1], "all") and found["language"] in (row[2], "all")
        ]  # fmt: skip

    for line in matrix["rows"]:
        held = group("train", line)
        for column, found in zip(matrix["columns"], line["cells"], strict=True):
            tested = group("test", column)
            images = {row[3] for row in held} & {row[3] for row in tested}
            assert found == {
                "images": len(images),
                "rows": sum(row[3] in images for row in tested),
                "exact": sum(row[3:6] in {row[3:6] for row in held} for row in tested),
            }
            assert column["rows"] == len(tested)


@pytest.fixture(scope="module")
def slake(realdata):
    return of_examples(READERS["slake"](realdata / "slake"))


def test_rad_leaks_by_design(realdata):
    made = of_examples(READERS["rad"](realdata / "vqa_rad"))
    found, column = cell(made.matrix("train", "test"), ("rad", "en"), ("rad", "en"))
    assert (column["images"], column["rows"]) == (203, 451)
    assert found["images"] == 202
    assert sum(1 for _ in made.repeated_ids()) == 0


def test_slake_leaks_across_languages(slake):
    matrix = slake.matrix("train", "test")
    pooled = ("slake", "all")
    found, column = cell(matrix, pooled, pooled)
    assert (found["images"], column["images"]) == (142, 180)
    assert (found["rows"], column["rows"]) == (1517, 2094)
    en, zh = ("slake", "en"), ("slake", "zh")
    assert [cell(matrix, *pair)[0]["images"] for pair in ((en, en), (zh, zh), (zh, en), (en, zh))] == [
        0,
        0,
        72,
        70,
    ]
    assert cell(matrix, zh, en)[1]["images"] == cell(matrix, en, zh)[1]["images"] == 96


def test_slake_has_fourteen_repeated_rows_in_train(slake):
    places = [place for place, _ in slake.repeated_rows()]
    assert len(places) == 14 and all(place.startswith("train.jsonl:") for place in places)


def test_pathvqa_splits_share_no_image_and_repeat_rows_within(realdata):
    made = of_examples(READERS["pathvqa"](realdata / "pathvqa"))
    for held, tested in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert made.shared_images(held, tested) == (set(), 0)
    # The hub's copy, without repeated rows, has 19,654, 6,259 and 6,719 of 19,755, 6,279 and 6,761: 42 of test.
    # One more is a repetition once its white space is tidied.
    splits = [place.split(".")[0] for place, _ in made.repeated_rows()]
    assert [splits.count(split) for split in ("train", "validation", "test")] == [101, 20, 43]
