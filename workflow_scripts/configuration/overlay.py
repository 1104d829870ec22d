"""Plain values laid over others, as Snakemake lays configurations over each other."""

from typing import Any


def merge(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `update` laid over it, section by section."""
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def without_null(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without the keys that are null, in sections too: an overlay removes a set or a key so."""
    return {
        key: without_null(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }
