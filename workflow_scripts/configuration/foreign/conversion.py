"""A file of LLaMA-Factory or ms-swift as a configuration of ours, and an account of every key of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, brief, shown
from workflow_scripts.configuration import overlay, reading
from workflow_scripts.configuration.foreign import sections
from workflow_scripts.configuration.foreign.meanings import NoCounterpart, NotNeeded, Ours, Trainer
from workflow_scripts.configuration.foreign.sections import Meaning
from workflow_scripts.configuration.foreign.trainers import LLAMA_FACTORY, TRAINERS
from workflow_scripts.configuration.settings import Config


class Converted(NamedTuple):
    """`configuration` is laid over the defaults; the others account for the keys, a line each."""

    trainer: str
    configuration: dict[str, Any]
    moved: list[str]
    assumed: list[str]
    lost: list[str]
    needless: list[str]


def convert(path: Path, gpus: int) -> Converted:
    """Convert `path`, of a training on so many GPUs; a UserError where it is of neither trainer."""
    stated = files.read_yaml(path)
    trainer = _trainer(path, stated)
    empty = [key for key in trainer.rules.keys() | trainer.together if stated.get(key, "") is None]
    stated = {key: value for key, value in stated.items() if key not in empty}
    stage = sections.stage(trainer.name, stated)
    values = {**trainer.defaults, **stated}
    found = Converted(trainer.name, {}, [], [], [], [f"{key}: None: it is empty" for key in sorted(empty)])
    try:
        ours = list(_parts(found, trainer, values, stated, stage, path.parent, gpus))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: a value of a kind that is not known ({brief(error)})") from None
    configuration: dict[str, Any] = {}
    for part in ours:
        configuration = overlay.merge(configuration, _nested(part, stage))
    _name_the_run(configuration)
    reading.validate(
        overlay.merge(Config().model_dump(mode="json"), configuration), where=f"{path}, converted"
    )
    return found._replace(configuration=configuration)


def _parts(
    found: Converted,
    trainer: Trainer,
    values: dict[str, Any],
    stated: Mapping[str, Any],
    stage: str,
    folder: Path,
    gpus: int,
) -> Iterator[Ours]:
    """What the keys become, together or each, with a line for each in `found`."""
    method = str(values.get("finetuning_type", values.get("tuner_type", values.get("train_type", "lora"))))
    together = [
        sections.batch(values, gpus),
        *sections.model(values),
        sections.frozen(values, method),
        *sections.data(values, folder, stage),
    ]
    yield from (_account(found, meaning, stated, stage) for meaning in together)
    if "eval_steps" in values and not sections.validates(trainer.name, values):
        found.needless.append(f"eval_steps: {shown(values.pop('eval_steps'))}: nothing was validated")
    for key, value in values.items():
        if key not in trainer.together:
            yield _moved(found, trainer, key, value, stage, stated)
    yield _unstated(found, trainer, values, stage, method)


def _trainer(path: Path, stated: Mapping[str, Any]) -> Trainer:
    best = max(TRAINERS, key=lambda trainer: len(trainer.marks & stated.keys()))
    if not best.marks & stated.keys():
        raise UserError(
            f"{path}: neither LLaMA-Factory's (model_name_or_path) nor ms-swift's (model); give one of their YAML files"
        )
    return best


def _account(found: Converted, meaning: Meaning, stated: Mapping[str, Any], stage: str) -> Ours:
    """Note what keys mean together, those that the file states."""
    keys = ", ".join(f"{key}: {shown(stated[key])}" for key in meaning.keys if key in stated)
    if not meaning.ours:
        if keys:
            (found.needless if meaning.why == sections.FROZEN else found.lost).append(
                f"{keys}: {meaning.why}"
            )
    elif keys:
        found.moved.append(f"{keys} → {_shown(meaning.ours, stage)}")
    else:
        found.assumed.append(f"{', '.join(meaning.keys)} → {_shown(meaning.ours, stage)}")
    return meaning.ours


def _moved(
    found: Converted, trainer: Trainer, key: str, value: Any, stage: str, stated: Mapping[str, Any]
) -> Ours:
    """What one key becomes; it is noted."""
    said = f"{key}: {shown(value)}"
    try:
        if key not in trainer.rules:
            raise NoCounterpart("unknown here")
        ours = trainer.rules[key](value)
        if stage == "sft" and any(path.startswith("dpo.") for path in ours):
            raise NotNeeded("it is of dpo")
    except (TypeError, ValueError, ArithmeticError):
        found.lost.append(f"{said}: of a kind that is not known here")
    except NoCounterpart as why:
        found.lost.append(f"{said}: {why}".replace("{stage}", stage))
    except NotNeeded as why:
        if key in stated:
            found.needless.append(f"{said}: {why}".replace("{stage}", stage))
    else:
        (found.moved if key in stated else found.assumed).append(f"{said} → {_shown(ours, stage)}")
        return ours
    return {}


def _unstated(found: Converted, trainer: Trainer, values: Mapping[str, Any], stage: str, method: str) -> Ours:
    """Defaults of theirs that follow from other keys."""
    missing: dict[str, tuple[float, str]]
    if trainer is LLAMA_FACTORY:
        missing = {"lora_alpha": (2 * int(values["lora_rank"]), "{stage}.lora.alpha")}
    else:
        missing = {"learning_rate": (1e-5 if method == "full" else 1e-4, "{stage}.learning_rate")}
        if "max_pixels" not in values:
            found.lost.append(
                "max_pixels is not stated, which is no limit there; here data.max_image_side is 768"
            )
    ours = {path: value for key, (value, path) in missing.items() if values.get(key) is None}
    if ours:
        found.assumed.append(f"{', '.join(missing)} → {_shown(ours, stage)}")
    return ours


def _shown(ours: Ours, stage: str) -> str:
    parts = (f"{path.replace('|', '.')}: {shown(value)}" for path, value in ours.items() if path != "run")
    return ", ".join(parts).replace("{stage}", stage)


def _nested(ours: Ours, stage: str) -> dict[str, Any]:
    """{"sft.lora.rank": 8} as {"sft": {"lora": {"rank": 8}}}; a name with dots in it stands between bars."""
    nested: dict[str, Any] = {}
    for path, value in ours.items():
        parts = path.split("|") if "|" in path else path.replace("{stage}", stage).split(".")
        for part in reversed(parts):
            value = {part: value}
        nested = overlay.merge(nested, value)
    return nested


def _name_the_run(configuration: dict[str, Any]) -> None:
    """Let `runs` make the one run that the file is of."""
    if run := configuration.pop("run", None):
        configuration["runs"] = [run]


def report(found: Converted) -> Iterator[str]:
    """The account in lines, what is lost first."""
    for title, lines in (
        ("has no counterpart", found.lost),
        (f"{found.trainer}'s default, stated since ours is another", found.assumed),
        ("taken over", found.moved),
        ("not needed", found.needless),
    ):
        if lines:
            yield f"{title}:"
            yield from (f"  {line}" for line in lines)


def as_yaml(found: Converted, source: Path) -> str:
    """The configuration, to be laid over config.yaml."""
    head = f"# Of {source.name}, {found.trainer}'s; lay it over config.yaml: snakemake --configfile config.yaml THIS\n"
    return head + yaml.safe_dump(found.configuration, sort_keys=False, allow_unicode=True, width=110)
