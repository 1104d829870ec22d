"""`medvqa COMMAND …`: the commands of this package under one name, each the same as `python -m workflow_scripts.COMMAND`.

A command is a file at the top of the package, or a room that can be called; its first sentence is its line of --help.
"""

import ast
import runpy
import sys
from pathlib import Path

import workflow_scripts
from workflow_scripts.base.errors import unknown
from workflow_scripts.base.paths import STAGES


def main() -> int:
    """Call the command that the first argument names, with the others; returns the exit status where none is called."""
    _, *arguments = sys.argv
    known = commands()
    if arguments and arguments[0] in known:
        sys.argv = [f"medvqa {arguments[0]}", *arguments[1:]]
        runpy.run_module(f"{workflow_scripts.__name__}.{arguments[0]}", run_name="__main__")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(known))
        return 0
    if arguments[0] == "--version":
        print(f"medvqa {workflow_scripts.__version__}")
        return 0
    print(f"error: {unknown(arguments[0], list(known))}; medvqa --help explains them", file=sys.stderr)
    return 2


def commands() -> dict[str, Path]:
    """The files of the commands by name, the stages of the chain first, in its order; none is imported."""
    folder = Path(__file__).parent
    found = {path.stem: path for path in folder.glob("[!_]*.py")}
    found |= {path.parent.name: path for path in folder.glob("[!_]*/__main__.py")}
    return {name: found[name] for name in (*STAGES, *sorted(found.keys() - set(STAGES)))}


def _help(known: dict[str, Path]) -> str:
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {_sentence(path)}" for name, path in known.items()]
    chain, others = lines[: len(STAGES)], lines[len(STAGES) :]
    return "\n".join(
        [
            "usage: medvqa COMMAND …",
            "",
            "The stages of the chain, one after the other:",
            *chain,
            "",
            "Besides:",
            *others,
        ]
        + ["", "medvqa COMMAND --help lists the flags of a command, medvqa --version says which this is."]
    )


def _sentence(path: Path) -> str:
    """The first line of what the file says about itself."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
