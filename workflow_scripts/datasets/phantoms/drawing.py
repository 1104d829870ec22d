"""A scene as pixels, as a mask of its structures and as their boxes."""

import math
import random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from workflow_scripts.datasets.phantoms.scenes import Scene

# The grey levels of SLAKE's mask.txt where it has the structure, free ones elsewhere.
LABELS = {
    "right lung": 225, "left lung": 215, "heart": 180, "brain": 25, "ventricle": 15, "liver": 70,
    "spleen": 230, "right kidney": 155, "left kidney": 135, "nodule": 245, "effusion": 248,
    "bright lesion": 185, "dark lesion": 190, "cyst": 75, "stone": 78, "cell": 20,
}  # fmt: skip
_STAINS = {
    "pink": (244, 170, 205), "purple": (165, 120, 215), "blue": (125, 175, 245), "brown": (190, 140, 85),
}  # fmt: skip


Points = list[tuple[float, float]]


class _Shape(NamedTuple):
    """A filled polygon in units of the image's side; unnamed shapes are scenery and not labelled."""

    name: str
    fill: tuple[int, ...] | int
    points: Points


def _ellipse(x: float, y: float, width: float, height: float, angle: float = 0.0, top: float = -1) -> Points:
    """The outline of an ellipse about (x, y), turned by `angle` radians, without what lies above `top`."""
    turns = [2 * math.pi * step / 60 for step in range(60)]
    across = [(width / 2 * math.cos(turn), height / 2 * math.sin(turn)) for turn in turns]
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in across]
    return [point for point in points if point[1] >= top]


def _chest(scene: Scene, chance: random.Random) -> list[_Shape]:
    shapes = [_Shape("", 120, _ellipse(0.5, 0.53, 0.98, 1.1)), _Shape("", 150, _ellipse(0.5, 0.5, 0.1, 1.0))]
    for name, x in (("right lung", 0.26), ("left lung", 0.74)):
        shapes.append(_Shape(name, 30, _ellipse(x, 0.5, 0.36, 0.74)))
    width = 0.5 if scene.enlarged else 0.24
    shapes.append(_Shape("heart", 175, _ellipse(0.53, 0.65, width, 0.9 * width)))
    if scene.finding:
        x = 0.26 if scene.finding.site == "right lung" else 0.74
        large = scene.finding.size == "large"
        if scene.finding.kind == "nodule":
            diameter = 0.26 if large else 0.14
            outline = _ellipse(x, chance.uniform(0.29, 0.33), diameter, diameter)
        else:
            outline = _ellipse(x, 0.5, 0.36, 0.74, top=0.46 if large else 0.7)
        shapes.append(_Shape(scene.finding.kind, 250, outline))
    return shapes


def _head(scene: Scene, chance: random.Random) -> list[_Shape]:
    shapes = [_Shape("", 215, _ellipse(0.5, 0.5, 0.84, 0.96)), _Shape("", 20, _ellipse(0.5, 0.5, 0.77, 0.89)),
              _Shape("brain", 125, _ellipse(0.5, 0.5, 0.72, 0.84))]  # fmt: skip
    width, height = (0.12, 0.44) if scene.enlarged else (0.045, 0.2)
    for lean in (-1, 1):
        outline = _ellipse(0.5 + lean * (0.02 + width / 2), 0.5, width, height, angle=-0.12 * lean)
        shapes.append(_Shape("ventricle", 40, outline))
    if scene.finding:
        diameter = 0.23 if scene.finding.size == "large" else 0.14
        x = 0.275 if scene.finding.site == "right hemisphere" else 0.725
        fill = 255 if scene.finding.kind == "bright lesion" else 0
        outline = _ellipse(x, chance.uniform(0.4, 0.6), diameter, diameter)
        shapes.append(_Shape(scene.finding.kind, fill, outline))
    return shapes


def _abdomen(scene: Scene, chance: random.Random) -> list[_Shape]:
    shapes = [_Shape("", 60, _ellipse(0.5, 0.5, 0.98, 0.84)), _Shape("", 95, _ellipse(0.5, 0.5, 0.92, 0.78)),
              _Shape("", 185, _ellipse(0.5, 0.77, 0.13, 0.13)),
              _Shape("liver", 150, _ellipse(0.27, 0.36, 0.42, 0.34, angle=-0.25))]  # fmt: skip
    width, height = (0.28, 0.36) if scene.enlarged else (0.12, 0.16)
    shapes.append(_Shape("spleen", 165, _ellipse(0.77, 0.36, width, height, angle=-0.3)))
    centres = {"liver": (0.26, 0.36), "right kidney": (0.29, 0.68), "left kidney": (0.71, 0.68)}
    for name in ("right kidney", "left kidney"):
        shapes.append(_Shape(name, 190, _ellipse(*centres[name], 0.2, 0.26)))
    if scene.finding:
        x, y = centres[scene.finding.site]
        diameter = 0.24 if scene.finding.size == "large" else 0.14
        fill = 255 if scene.finding.kind == "stone" else 0
        shapes.append(_Shape(scene.finding.kind, fill, _ellipse(x, y, diameter, diameter)))
    return shapes


def _tissue(scene: Scene, chance: random.Random) -> list[_Shape]:
    cells = scene.cells
    assert cells is not None  # tissue has them
    stain = _STAINS[cells.stain]
    shapes = [_Shape("", stain, [(-1, -1), (2, -1), (2, 2), (-1, 2)])]
    fibre = tuple(min(255, level + 18) for level in stain)
    for _ in range(6):
        x, y, angle = chance.random(), chance.random(), chance.uniform(0, math.pi)
        shapes.append(_Shape("", fibre, _ellipse(x, y, 0.4, 0.03, angle)))
    width, height = (0.22, 0.22) if cells.shape == "round" else (0.3, 0.09)
    centres = [(0.31, 0.31), (0.69, 0.31), (0.31, 0.69), (0.69, 0.69)]
    for x, y in chance.sample(centres, cells.count):
        angle = chance.uniform(0, math.pi)
        dark = tuple(level // 4 for level in stain)
        shapes.append(_Shape("cell", dark, _ellipse(x, y, width, height, angle)))
    return shapes


_DRAWERS = {"chest": _chest, "head": _head, "abdomen": _abdomen, "tissue": _tissue}


def _shapes(scene: Scene) -> list[_Shape]:
    """The scene's shapes from back to front, shifted by a little that no answer depends on."""
    chance = random.Random(f"shapes {scene.seed}")
    shapes = _DRAWERS[scene.family](scene, chance)
    right, down = chance.uniform(-0.02, 0.02), chance.uniform(-0.02, 0.02)
    return [shape._replace(points=[(x + right, y + down) for x, y in shape.points]) for shape in shapes]


def _fill(canvas: ImageDraw.ImageDraw, points: Points, fill: tuple[int, ...] | int) -> None:
    side = canvas.im.size[0]
    fill = (fill, fill, fill) if isinstance(fill, int) else fill
    canvas.polygon([(x * side, y * side) for x, y in points], fill=fill)


def draw(scene: Scene, side: int = 224) -> Image.Image:
    """The scene as an RGB image of `side` x `side` pixels."""
    image = Image.new("RGB", (2 * side, 2 * side))  # twice the size, for smooth edges
    canvas = ImageDraw.Draw(image)
    for shape in _shapes(scene):
        _fill(canvas, shape.points, shape.fill)
    left, top = 0.02 if "left" in scene.marker else 0.86, 0.02 if "top" in scene.marker else 0.86
    corners = [(left, top), (left + 0.12, top), (left + 0.12, top + 0.12), (left, top + 0.12)]
    _fill(canvas, corners, 0 if scene.cells else 255)
    smooth = np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    chance = np.random.default_rng(scene.seed)
    pixels = smooth * chance.uniform(0.92, 1.0) + chance.normal(0, 4, (side, side, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def mask(scene: Scene, side: int = 224) -> Image.Image:
    """The structures as an RGB image in the grey levels of LABELS; black is background."""
    image = Image.new("RGB", (side, side))
    canvas = ImageDraw.Draw(image)
    for shape in _shapes(scene):
        if shape.name:
            _fill(canvas, shape.points, LABELS[shape.name])
    return image


def boxes(scene: Scene, side: int = 224) -> list[dict[str, list[float]]]:
    """What the mask shows, a box each, in pixels: {"Heart": [x, y, width, height]}."""
    labels = np.asarray(mask(scene, side))[:, :, 0]
    found = []
    for name, label in LABELS.items():
        rows, columns = np.nonzero(labels == label)
        if len(rows):
            x, y = int(columns.min()), int(rows.min())
            box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
            found.append({name.title(): [float(edge) for edge in box]})
    return found
