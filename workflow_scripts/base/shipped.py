"""Where the Snakefile lies, with its rules and profiles: at the top of a checkout, or where a wheel has put them."""

from importlib import metadata
from pathlib import Path

from workflow_scripts.base.errors import UserError

_CHECKOUT = Path(__file__).parents[2]


def snakefile() -> Path:
    """The Snakefile of this package; a UserError where it was installed without."""
    if (path := _CHECKOUT / "Snakefile").is_file():
        return path
    try:
        installed = metadata.files("medvqa") or []
    except metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name == "Snakefile":
            return Path(str(file.locate())).resolve()
    raise UserError(
        "the Snakefile was not installed with this package; install its wheel, or work in a checkout"
    )
