"""The names of numbers, alike in every stage and tracker: grouped by slashes, as `train/loss`."""

from collections.abc import Mapping, Sequence
from typing import Any

VALIDATION = "eval_"  # before what the trainer logs of a validation
_OF_THE_WHOLE = (
    "_runtime",
    "samples_per_second",
    "steps_per_second",
    "total_flos",
    "train_loss",
)  # what a trainer logs at an end


def of_curve(logs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a trainer's log: those of a step as `train/…`, those of a validation as `validation/…`."""
    found = {}
    for key, value in logs.items():
        if is_number(value) and not key.endswith(_OF_THE_WHOLE):
            group, name = (
                ("validation", key[len(VALIDATION) :]) if key.startswith(VALIDATION) else ("train", key)
            )
            found[f"{group}/{name}"] = float(value)
    return found


def of_validation(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """The numbers of the validation at `step` in a trainer's log `history`; {} where there was none."""
    found: dict[str, Any] = {}
    for entry in history:
        if entry["step"] == step:
            found |= {key: value for key, value in entry.items() if key.startswith(VALIDATION)}
    return of_curve(found)


def flatten(value: Mapping[str, object], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined; lists stay values."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, separator, f"{name}{separator}") if isinstance(item, dict) else {name: item}
    return flat


def numbers(values: Mapping[str, object]) -> dict[str, float]:
    """The numbers of nested dictionaries, named by their way: `data/train/rows`."""
    return {name: float(value) for name, value in flatten(values, "/").items() if is_number(value)}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
