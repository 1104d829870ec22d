"""What a phantom shows, drawn by lot from its seed."""

import random
from dataclasses import dataclass

# Pictures to pre-train on are made from these seeds, sets to train and test on from all others.
PRETRAINING_SEEDS = range(1_000_000_000, 2_000_000_000)

CORNERS = ("top left", "top right", "bottom left", "bottom right")
STAINS = ("pink", "purple", "blue", "brown")
SHAPES = ("round", "spindle")


@dataclass(frozen=True)
class Anatomy:
    """What the scenes of a family have in common; `resizable` may be enlarged."""

    modality: str
    body_part: str
    organ: str
    kinds: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    resizable: str = ""


FAMILIES = {
    "chest": Anatomy("X-Ray", "chest", "lung", ("nodule", "effusion"), ("right lung", "left lung"), "heart"),
    "head": Anatomy("MRI", "head", "brain", ("bright lesion", "dark lesion"),
                    ("right hemisphere", "left hemisphere"), "ventricle"),
    "abdomen": Anatomy("CT", "abdomen", "abdomen", ("cyst", "stone"),
                       ("liver", "right kidney", "left kidney"), "spleen"),
    "tissue": Anatomy("Microscopy", "tissue", "tissue"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """An abnormality: its kind and site are among its family's, its size is small or large."""

    kind: str
    site: str
    size: str


@dataclass(frozen=True)
class Cells:
    """What a tissue slide shows: a stain of STAINS, 1 to 4 big cells, a shape of SHAPES."""

    stain: str
    count: int
    shape: str


@dataclass(frozen=True)
class Scene:
    """All that can be asked about one image. `cells` is set for tissue only, `finding` never for it."""

    seed: int
    family: str
    marker: str
    finding: Finding | None = None
    enlarged: bool = False
    cells: Cells | None = None

    @property
    def anatomy(self) -> Anatomy:
        return FAMILIES[self.family]

    @property
    def modality(self) -> str:
        return self.anatomy.modality

    @property
    def organ(self) -> str:
        return self.anatomy.organ


def data_seed(number: int) -> int:
    """The seed of the `number`-th image of all sets, 0 or more."""
    return number if number < PRETRAINING_SEEDS.start else number + len(PRETRAINING_SEEDS)


def scene(seed: int, family: str | None = None) -> Scene:
    """The scene of a seed: every attribute uniform, the family too unless it is given."""
    chance = random.Random(f"scene {seed}")
    family = family or chance.choice(tuple(FAMILIES))
    anatomy, marker = FAMILIES[family], chance.choice(CORNERS)
    if family == "tissue":
        cells = Cells(chance.choice(STAINS), chance.randint(1, 4), chance.choice(SHAPES))
        return Scene(seed, family, marker, cells=cells)
    kind = chance.choice((*anatomy.kinds, None))
    finding = Finding(kind, chance.choice(anatomy.sites), chance.choice(("small", "large"))) if kind else None
    return Scene(seed, family, marker, finding, enlarged=chance.random() < 0.5)
