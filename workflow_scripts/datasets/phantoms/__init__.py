"""Drawn stand-ins for medical images: every answer to every question can be read off the pixels.

Sides are the patient's, by the radiological convention: the patient's left lung is on the right of the
image. Only the marker, a square in one corner, is placed by the image's own sides.
Everything is a pure function of the scene, so a seed stands for its image, its questions and its answers.
"""

from workflow_scripts.datasets.phantoms.drawing import boxes, draw, mask
from workflow_scripts.datasets.phantoms.reports import describe, facts, headline, statement
from workflow_scripts.datasets.phantoms.scenes import FAMILIES, PRETRAINING_SEEDS, Scene, data_seed, scene
from workflow_scripts.datasets.phantoms.terms import title
from workflow_scripts.datasets.phantoms.wording import Question, questions

__all__ = [
    "FAMILIES", "PRETRAINING_SEEDS", "Question", "Scene",
    "boxes", "data_seed", "describe", "draw", "facts", "headline", "mask", "questions", "scene", "statement", "title",
]  # fmt: skip
