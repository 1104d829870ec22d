"""How long an epoch takes, from a stated rate of matrix products and the share of it that was measured."""

from typing import TYPE_CHECKING

from workflow_scripts.configuration.settings import Training
from workflow_scripts.models.sizes import Size
from workflow_scripts.training.estimation import sets
from workflow_scripts.training.estimation.sets import Rows

if TYPE_CHECKING:
    from workflow_scripts.training.estimation.needs import Way

H200 = 777.0  # TFLOP/s of a bf16 matrix product, measured (benchmarks/README.md), as are these shares of it
# By one layer in how many recomputes: LoRA of the 9B at 768 px and 14 questions an image, 4 operations a parameter.
UTILISED = {None: 0.470, 2: 0.395, 1: 0.340}
OF_LORA, OF_FULL = 4, 6  # operations a parameter and token: frozen weights have no gradient of their own


def operations(size: Size, settings: Training, rows: Rows) -> float:
    """Of an epoch: the text layers for each unique token, and the vision tower where it trains, for each pass of an image."""
    tokens = rows.unique_tokens(sets.together(settings))
    each = OF_FULL if settings.method == "full" else OF_LORA
    found = each * size.active * tokens
    if settings.trains_vision:
        patches = (tokens - rows.rows * rows.text) * size.vision.spatial_merge_size**2
        found += each * size.numbers["vision tower"] * patches
    return found


def utilised(way: "Way") -> float:
    """The measured share of the rate, by how much `way` recomputes: what lies between two is taken for the lower."""
    every = way.every
    return UTILISED[every] if every in UTILISED else UTILISED[2]


def epoch_seconds(size: Size, way: "Way", rows: Rows, rate: float) -> float:
    """Seconds of an epoch at `rate` TFLOP/s a GPU. Of a mixture of experts, several GPUs, 4 bits: not measured."""
    return operations(size, way.settings, rows) / (rate * 1e12 * utilised(way) * way.gpus)
