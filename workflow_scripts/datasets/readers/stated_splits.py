"""The split that a row of a user's set states: by its column, the names of its table and folder, or of its images."""

from pathlib import Path

from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.readers import split_names, tables

STATE_SPLITS = "give the rows a column 'split' with train, validation or test, or rename it after one of them"


def of_table(path: Path, root: Path) -> str:
    """The split that the table, or a folder between it and `root`, is named after; "" for none."""
    place = path.relative_to(root)
    names = [*place.parts[:-1], place.stem]
    found = {split for name in names if (split := of_name(name, tables.original(path)))}
    if len(found) > 1:
        raise UserError(f"{tables.original(path)}: table and folder name two splits; {STATE_SPLITS}")
    return found.pop() if found else ""


def of_name(name: str, where: Path) -> str:
    """The split that a folder or a table is named after; a name that may mean several is a UserError."""
    try:
        return split_names.split(name)
    except ValueError as error:
        raise UserError(f"{where}: {error}; {STATE_SPLITS}") from None


def of_row(column: str, table: str, images: list[str], where: str) -> str:
    """The split that the row's `column`, else its `table`'s name, else that of its `images` states, "" for none."""
    if column:
        if column.lower() not in split_names.SPLITS:
            raise UserError(f"{where}: split is {shown(column)}, none of {', '.join(split_names.SPLITS)}")
        return split_names.SPLITS[column.lower()]
    if table:
        return table
    try:
        found = {split_names.of_image(image) for image in images} - {""}
    except ValueError as error:
        raise UserError(f"{where}: {error}; {STATE_SPLITS}") from None
    if len(found) > 1:
        raise UserError(f"{where}: its images are named after two splits; {STATE_SPLITS}")
    return found.pop() if found else ""
