"""LLaMA-Factory's dataset_info.json beside a table: what its columns and the tags of its turns are called there.

The keys and what stands for one that is left out are those of LLaMA-Factory's data/README.md (0.9.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.readers.fields import Row

NAME = "dataset_info.json"
# Its names of columns, and ours of the same, by `formatting`.
_COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
_ALIKE = ("history", "system", "images")  # in both, and by the same name as ours


class Tags(BaseModel):
    """The keys of a turn, and the roles that stand in it."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"


class DatasetEntry(BaseModel):
    """What the file says of one table."""

    file_name: str = ""
    formatting: str = "alpaca"
    columns: dict[str, str | None] = {}
    tags: Tags = Tags()


@dataclass(frozen=True)
class Naming:
    """The names of one table's columns and tags; without any, rows stay as they are."""

    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Tags | None = None

    def plain(self, row: Row) -> Row:
        """`row` by the names that `dialogue_layouts` knows; a ValueError where a named column is not there."""
        if missing := [name for name in self.columns if name not in row]:
            raise ValueError(f"{NAME} names a column '{missing[0]}', which is not there")
        kept = {key: value for key, value in row.items() if key not in self.columns}
        row = kept | {ours: row[theirs] for theirs, ours in self.columns.items()}
        if self.tags and isinstance(turns := row.get("conversations"), list):
            row["conversations"] = [self._turn(turn, self.tags) for turn in turns]
        return row

    def _turn(self, turn: Any, tags: Tags) -> Any:
        if not isinstance(turn, dict) or tags.role_tag not in turn or tags.content_tag not in turn:
            return turn
        roles = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
        said = turn[tags.role_tag]
        return {
            "role": roles.get(said, said) if isinstance(said, str) else said,
            "content": turn[tags.content_tag],
        }


def of_table(table: Path) -> Naming:
    """What the file beside `table` says of it; a file that cannot be read is a UserError."""
    path = table.with_name(NAME)
    if not path.is_file():
        return Naming()
    entry = next(
        (found for found in files.read_object(path).values() if _file_name(found) == table.name), None
    )
    if entry is None:
        return Naming()
    try:
        stated = DatasetEntry.model_validate(entry)
    except ValidationError as error:
        raise UserError(f"{path}: {table.name}: {structure.describe(error)}") from None
    known = _COLUMNS.get(stated.formatting)
    if known is None:
        raise UserError(
            f"{path}: {table.name}: formatting is {stated.formatting!r}; alpaca and sharegpt are read"
        )
    ours = known | dict(zip(_ALIKE, _ALIKE, strict=True))
    columns = {theirs: ours[key] for key, theirs in stated.columns.items() if theirs and key in ours}
    return Naming(columns, stated.tags if "tags" in entry else None)


def _file_name(entry: Any) -> object:
    return entry.get("file_name") if isinstance(entry, dict) else None
