"""Rows of XML and Excel files that may be hostile: entities are refused, and nothing outside is fetched."""

import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.datasets.readers.fields import Row

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 2**28  # of an unpacked Excel file


class _Cell(Protocol):
    """A cell of a sheet, empty or not."""

    @property
    def value(self) -> Any: ...
    @property
    def number_format(self) -> str: ...


def xml(path: Path) -> list["Element"]:
    """The elements below the root; XML that is broken or declares entities is a UserError."""
    import defusedxml
    from defusedxml import ElementTree

    try:
        root = ElementTree.parse(path, forbid_dtd=True).getroot()
        return [] if root is None else list(root)
    except defusedxml.DefusedXmlException as error:
        raise UserError(
            f"{path}: declares a document type or entities ({error}); do not trust the file"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of an odd encoding
        raise UserError(f"{path}: not valid XML ({error}); fetch it again") from None


def xlsx(path: Path) -> list[Row]:
    """The rows of the first sheet by the names in its first row, numbers as the sheet shows them: 0.05 may be "5%"."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise UserError(f"{path}: would unpack to more than {MAX_BYTES >> 20} MiB; refused")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of drop-down lists and the like
            with _opened(path) as book:
                rows = book.worksheets[0].iter_rows()
                names = [cell.value for cell in next(rows, ())]
                found = [_row(names, row) for row in rows if any(cell.value is not None for cell in row)]
            if cells := _uncalculated(path):
                raise UserError(
                    f"{path}: {len(cells)} cells are formulas without a stored value ({', '.join(cells[:20])}); open "
                    "and save the file in Excel or LibreOffice, or put the values in their place"
                )
            return found
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path}: not a readable Excel file ({brief(error)}); fetch it again") from None


@contextmanager
def _opened(path: Path, formulas: bool = False) -> Iterator[Any]:
    """The workbook, with the values of its cells or their formulas; openpyxl leaves a damaged file open."""
    import openpyxl

    with open(path, "rb") as file:
        book = openpyxl.load_workbook(file, read_only=True, data_only=not formulas, keep_links=False)
        with closing(book):
            yield book


def _uncalculated(path: Path) -> list[str]:
    """The cells of the first sheet that are formulas whose value no program has stored; an empty text is a value."""
    with _opened(path, formulas=True) as book, _opened(path) as values:
        pairs = zip(book.worksheets[0].iter_rows(), values.worksheets[0].iter_rows(), strict=True)
        return [
            cell.coordinate
            for row, stored in pairs
            for cell, value in zip(row, stored, strict=True)
            if cell.data_type == "f" and value.value is None and value.data_type not in ("s", "str")
        ]


def _row(names: Sequence[Any], cells: Iterable[Any]) -> Row:
    return {name: _shown(cell) for name, cell in zip(names, cells, strict=False)}


def _shown(cell: _Cell) -> object:
    value = cell.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{100 * value:.15g}%" if cell.number_format.endswith("%") else f"{value:.15g}"
    return "" if value is None else value
