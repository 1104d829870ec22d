"""What a scene shows, as statements instead of answers: a report, its single facts, and what would be false."""

import random

from workflow_scripts.datasets.phantoms.scenes import CORNERS, SHAPES, STAINS, Scene
from workflow_scripts.datasets.phantoms.terms import title

_EDGES = ("top", "bottom", "left", "right")


def facts(scene: Scene) -> dict[str, str]:
    """What an image differs in from others of its family, by name: {"marker": "top left", "heart": "normal", …}."""
    known = {"marker": scene.marker}
    if scene.cells:
        return known | {
            "stain": scene.cells.stain,
            "count": str(scene.cells.count),
            "shape": scene.cells.shape,
        }
    finding = scene.finding
    known["abnormality"] = finding.kind if finding else "none"
    if finding:
        known |= {"site": finding.site, "size": finding.size}
    return known | {scene.anatomy.resizable: "enlarged" if scene.enlarged else "normal"}


def statement(scene: Scene, name: str, chance: random.Random) -> tuple[str, bool]:
    """(a value for the fact `name`, whether it is true), true half of the time.

    The marker is placed in a corner or at an edge.
    """
    known = facts(scene)[name]
    if name == "marker" and chance.random() < 0.5:
        edge = chance.choice(_EDGES)
        return edge, edge in known
    if chance.random() < 0.5:
        return known, True
    return chance.choice([value for value in _values(scene, name) if value != known]), False


def _values(scene: Scene, name: str) -> tuple[str, ...]:
    """What the fact `name` may be in an image of the scene's family."""
    anatomy = scene.anatomy
    return {
        "marker": CORNERS,
        "stain": STAINS,
        "count": ("1", "2", "3", "4"),
        "shape": SHAPES,
        "abnormality": (*anatomy.kinds, "none"),
        "site": anatomy.sites,
        "size": ("small", "large"),
        anatomy.resizable: ("normal", "enlarged"),
    }[name]


def headline(scene: Scene, language: str = "en") -> str:
    """The modality and the part of the body."""
    terms = (scene.modality, scene.anatomy.body_part)
    return ("，" if language == "zh" else ", ").join(title(term, language) for term in terms)


def describe(scene: Scene, language: str = "en") -> str:
    """A short report that states all that `questions` may ask, in the words of their answers."""
    known = facts(scene)
    if scene.cells:
        said = {"marker": ["marker"], "stain": ["stain"], "cells": ["count", "shape"]}
    else:
        resizable = scene.anatomy.resizable
        said = {"marker": ["marker"], "abnormality": ["abnormality", "site", "size"], resizable: [resizable]}
    colon, comma, stop = ("：", "，", "。") if language == "zh" else (": ", ", ", ". ")
    sentences = [headline(scene, language)]
    for name, parts in said.items():
        values = [title(known[part], language) for part in parts if part in known]
        sentences.append(title(name, language) + colon + comma.join(values))
    return (stop.join(sentences) + stop).strip()
