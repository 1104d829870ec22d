"""The records of a run, made of examples: their texts in the run's form, their images as the split's file names them."""

import os
from dataclasses import replace
from typing import Any

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import mixing, records, terminology
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Example, Record
from workflow_scripts.datasets.thoughts import thought
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import escape


class RecordMaker:
    """Makes the records of a run from examples."""

    def __init__(self, settings: Config, layout: Layout, run: Run) -> None:
        self._format = VERSIONS[run.model_version].answer_format(run.mode)
        self._from_facts = self._format.thinking and settings.data.thoughts == "facts"
        canonical = settings.data.terminology == "canonical"
        self._terms = terminology.load(tuple(settings.terms)) if canonical else None
        self._raw = {
            name: os.path.relpath(layout.raw(name), layout.data(run))
            for name in settings.sources(run.dataset)
        }

    def __call__(self, row: Example, split: str, copy: int) -> Record:
        """The record of a row that goes to `split`, for the (`copy` + 1)-th time."""
        stated = row.answer
        if self._terms:
            row = replace(row, answer=self._terms.canonical(row.answer, row.language) or row.answer)
        images = [self._path(row, image) for image in row.images]
        record = records.to_record(row, images, self._turns(row))
        record["split"], record["id"] = split, mixing.copy_id(row.id, copy)
        if self._terms:
            record["raw_answer"] = stated
        return record

    def annotations(self, row: Example) -> dict[str, Any]:
        """What the set says of a row beyond its record."""
        return records.annotations(row, self._path(row, row.mask) if row.mask else "")

    def _path(self, row: Example, file: str) -> str:
        return os.path.normpath(os.path.join(self._raw[row.source], file))

    def _turns(self, row: Example) -> list[tuple[str, str]]:
        """The user's and the assistant's text of each turn, safe inside a dialogue."""
        reason = row.rationale or (thought(row) if self._from_facts else "")
        target = self._format.write(row.answer, reason)
        if not row.turns:
            return [(records.user_text(escape(row.question), len(row.images)), target)]
        users = [
            IMAGE_PLACEHOLDER.join(map(escape, turn.user.split(IMAGE_PLACEHOLDER))) for turn in row.turns
        ]
        earlier = [self._format.write(turn.answer, turn.rationale) for turn in row.turns[:-1]]
        return list(zip(users, [*earlier, target], strict=True))
