"""From the flags of a stage to the run, the results folder and the settings that they mean."""

import argparse
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow_scripts.base import cli, files, gpus, locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import METRICS, Layout, Run
from workflow_scripts.base.processes import started_by_torchrun
from workflow_scripts.configuration import dependencies, reading
from workflow_scripts.configuration.settings import FEWEST_ROWS, Config
from workflow_scripts.models.catalogue import MODES, VERSIONS
from workflow_scripts.models.prompt_styles import AUTO, STYLES

# Names the configuration for the commands that Snakemake starts.
CONFIG_VARIABLE = "MEDVQA_CONFIG"
DEFAULT = Path("config.yaml")
OVERFIT_STEPS = 200


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser for a stage of the chain: where the configuration and the results are, and which run."""
    result = cli.parser(description)
    default = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT))
    result.add_argument("--config", nargs="+", type=Path, default=[default], help="later over earlier files")
    result.add_argument(
        "--results", type=Path, help="the folder of everything made, instead of the configuration's"
    )
    result.add_argument(
        "--limit",
        type=number_of(f"rows of {FEWEST_ROWS} or more", FEWEST_ROWS),
        help="instead of limit of the configuration",
    )
    return result


RUN_FLAGS = {
    "dataset": "slake, rad, pathvqa, combined, or one of your own",
    "model_version": "4.1v, 4.5v, or another of the catalogue",
    "mode": "thinking or base",
}


def add_run_flags(result: argparse.ArgumentParser, required: bool = True) -> None:
    """The three names that make a run."""
    for name, meaning in RUN_FLAGS.items():
        result.add_argument(f"--{name}", required=required, help=meaning, default=argparse.SUPPRESS)


def settings_and_layout(options: argparse.Namespace) -> tuple[Config, Layout]:
    """What the flags of `stage_parser` lead to; a UserError lists all errors of the configuration."""
    if options.config == [DEFAULT] and not DEFAULT.exists():
        raise UserError(
            f"{DEFAULT}: not in this folder; go to the one that has it, name it by --config, or let "
            "`python -m workflow_scripts.config --write` make one with every default"
        )
    settings = reading.load(options.config)
    if options.limit:
        settings = settings.model_copy(update={"limit": options.limit})
    return settings, settings.layout(options.results)


def stage_inputs(options: argparse.Namespace, stage: str, run: Run) -> tuple[Config, Layout]:
    """What `stage` is given for `run`: the run's own settings, as far as the stage is declared to read them."""
    settings, layout = settings_and_layout(options)
    return dependencies.shown_to(stage, settings, run), layout


def run_of(options: argparse.Namespace, model: Path | None = None) -> Run:
    """The run that the flags of `add_run_flags` name, and where they leave one out, `model`."""
    return Run(*run_names(options, model, tuple(RUN_FLAGS)))


def run_of_model(options: argparse.Namespace, model: Path) -> Run:
    """Version and mode of `model` as a run, of the data set that it was trained on or of none."""
    version, mode = run_names(options, model, ("model_version", "mode"))
    return Run(getattr(options, "dataset", "") or names_of_model(model).get("dataset", ""), version, mode)


def run_names(options: argparse.Namespace, model: Path | None, needed: tuple[str, ...]) -> list[str]:
    """The values of the flags `needed`; one that was left out is that of the run that trained `model`."""
    known = (names_of_model(model) if model else {}) | vars(options)
    missing = [name for name in needed if not known.get(name)]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        untold = f": neither {METRICS} nor the folder's name of {model} tells" if model else ""
        raise UserError(f"say {flags}{untold}")
    return [known[name] for name in needed]


def names_of_model(model: Path) -> dict[str, str]:
    """What is known of the run that trained `model`: by its metrics.json, else by its folder's name.

    A folder named {model_version}_{mode}, as of a download, tells these two.
    """
    metrics = model / METRICS
    trained = str(files.read_object(metrics).get("run", "")) if metrics.is_file() else ""
    for name in (trained, model.resolve().name):
        parts = name.split("_")
        if len(parts) in (2, 3) and parts[-2] in VERSIONS and parts[-1] in MODES:
            return dict(zip(reversed(RUN_FLAGS), reversed(parts), strict=False))
    return {}


def model_folder(text: str) -> Path:
    """The type of a flag that names a model on this machine; a path that is no folder is a UserError."""
    if not Path(text).is_dir():
        raise UserError(f"{text}: no such folder; give that of a model or an adapter")
    return Path(text)


def add_prompt_style(result: argparse.ArgumentParser) -> None:
    """How a model that was trained elsewhere was prompted."""
    meanings = "; ".join(f"{style.name}: {style.meaning}" for style in STYLES.values())
    result.add_argument(
        "--prompt_style",
        choices=[AUTO, *STYLES],
        default=AUTO,
        help=f"how the model was prompted in its training ({meanings}); {AUTO}: ours for models of this project, for others "
        "what their files tell and a few questions in each style show",
    )


def comma_separated(text: str) -> list[str]:
    """Names that are written with commas between them."""
    return [name for name in text.split(",") if name]


def memory_size(text: str) -> float:
    """Bytes of a card's memory: 24GB, 80 GiB or 80; cards count in GiB whatever they are called."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of memory such as 24GB")
    return float(found[1]) * 2**30


def number_of(what: str, least: int = 1) -> Callable[[str], int]:
    """The type of a flag that is a whole number of `what`, from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}")
        return int(text)

    return number


def rate(text: str) -> float:
    """A rate above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate in TFLOP/s")
    return found


def training_options(stage: str, description: str | None, arguments: list[str]) -> argparse.Namespace:
    """The flags of sft and dpo, with `run`, `layout` and the `settings` that they lead to."""
    result = stage_parser(description)
    add_run_flags(result, required=False)
    result.add_argument(
        "--method", choices=["lora", "full"], help=f"instead of {stage}.method of the configuration"
    )
    result.add_argument("--base_model", type=model_folder, help="start from this model or adapter instead")
    result.add_argument(
        "--overfit",
        type=number_of("steps"),
        nargs="?",
        const=OVERFIT_STEPS,
        metavar="STEPS",
        help=f"only let one batch be learnt by heart, as a self-test, within so many steps (without a number: {OVERFIT_STEPS})",
    )
    options = result.parse_args(arguments)
    options.run = run_of(options, options.base_model)
    options.settings, options.layout = stage_inputs(options, stage, options.run)
    if options.method:
        getattr(options.settings, stage).method = options.method
    return options


@contextmanager
def training_place(options: argparse.Namespace, stage: str) -> Iterator[None]:
    """The GPUs that a training asks for, by `training_options`, once no other command writes its output.

    Nobody waits for GPUs whose output is refused afterwards; the first process of the training then holds it.
    """
    own = getattr(options.settings, stage)
    if (
        own.nodes == 1 and not started_by_torchrun() and not options.overfit
    ):  # else the first process may be at work elsewhere
        with locks.one_writer(options.layout.trained(stage, options.run), options.settings.output_in_use):
            pass
    with gpus.taken(own.gpus, own.nodes):
        yield
