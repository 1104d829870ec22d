"""The preferences stage by rules alone, which needs no model: what it writes, and what it refuses."""

import pytest

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import validate
from workflow_scripts.datasets.mixing import copy_id
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import convert, download, preferences

RUN = Run("slake", "4.1v", "thinking")
READER = VERSIONS["4.1v"].answer_format("thinking")


@pytest.fixture(scope="module")
def settings():
    raw = {
        "datasets": {"slake": {"reader": "slake", "embedded": 20}},
        "preferences": {"own_answers": False},
    }
    return validate(raw, "test")


@pytest.fixture
def layout(settings, tmp_path):
    layout = Layout(tmp_path)
    download.download_source(settings, layout, "slake")
    convert.convert(settings, layout, RUN)
    return layout


def test_pairs_differ_in_what_they_answer(layout, settings):
    counts = preferences.preferences(settings, layout, RUN, layout.trained("sft", RUN))
    rows = list(files.read_jsonl(layout.preferences(RUN)))
    assert sum(counts.values()) == len(rows) > 0
    assert all(READER.read(row["chosen"]) != READER.read(row["rejected"]) for row in rows)


def test_a_row_that_mixing_repeats_is_asked_once(layout, settings):
    preferences.preferences(settings, layout, RUN, layout.trained("sft", RUN))
    before = layout.preferences(RUN).read_text()
    rows = list(files.read_jsonl(layout.split(RUN, "train")))
    copies = [row | {"id": copy_id(row["id"], 1)} for row in rows]
    files.write_jsonl(layout.split(RUN, "train"), rows + copies)
    preferences.preferences(settings, layout, RUN, layout.trained("sft", RUN))
    assert layout.preferences(RUN).read_text() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": READER.write("yes.", "Other.")}, "rejected says the same as chosen: 1\n    x: "),
        ({"images": []}, "<image> does not stand once per image"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(change, said):
    pair = {
        "id": "x",
        "messages": [{"role": "user", "content": "<image>Is it?"}],
        "images": ["a.png"],
        "chosen": READER.write("Yes", "Look."),
        "rejected": READER.write("No", "Look."),
    }
    preferences._check([pair], READER)
    with pytest.raises(UserError, match=said):
        preferences._check([pair, pair | change], READER)
