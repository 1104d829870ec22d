"""The preferences stage: what may stand beside a right answer as a wrong one."""

import pytest
from PIL import Image

from workflow_scripts import files
from workflow_scripts.config import validate
from workflow_scripts.datasets.records import Example, to_record
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.paths import Layout, Run
from workflow_scripts.preferences import preferences

RUN = Run("slake", "4.1v", "base")
SETTINGS = validate({"preferences": {"own_answers": False, "rules": ["other_image"]}}, "test")


@pytest.fixture
def answered(tmp_path):
    """Write train records, one an answer and each of an image of its own, to the same question."""

    def write(*answers: str) -> Layout:
        layout, write_target = Layout(tmp_path), VERSIONS["4.1v"].answer_format("base").write
        records = {"train": [], "test": []}
        for number, (split, answer) in enumerate(
            [*(("train", answer) for answer in answers), ("test", "Lung")]
        ):
            example = Example(
                str(number), "slake", split, "", str(number), "Which organ is it?", answer, "open"
            )
            image = layout.data(RUN) / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(image)
            records[split].append(to_record(example, image.name, example.question, write_target(answer)))
        for split, rows in records.items():
            files.write_jsonl(layout.split(RUN, split), rows)
        return layout

    return write


def test_a_synonym_of_the_right_answer_is_not_rejected(answered):
    layout = answered("Small Bowel", "small intestine", "Colon")
    preferences(SETTINGS, layout, RUN, layout.root)
    pairs = [{row["answer"], row["rejected_answer"]} for row in files.read_jsonl(layout.preferences(RUN))]
    assert len(pairs) == 3 and {"Small Bowel", "small intestine"} not in pairs
