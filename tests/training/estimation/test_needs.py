"""The estimates are what was measured, and what the models' authors state."""

import pytest

from workflow_scripts.configuration.settings import Lora, Sft
from workflow_scripts.models import shapes, sizes
from workflow_scripts.training.estimation import needs, speed
from workflow_scripts.training.estimation.needs import Way
from workflow_scripts.training.estimation.sets import Rows

GIB = 2**30


@pytest.fixture(scope="module")
def dense():
    return shapes.published("4.1v")


@pytest.fixture(scope="module")
def experts():
    return shapes.published("4.5v")


def gib(shape, settings: Sft, gpus=1, tokens=760.0, rows=1.0, every: int | None = 1) -> float:
    return sum(needs.needs(shape, Way(settings, gpus, tokens, rows, every)).values()) / GIB


LORA = Sft(lora=Lora(dropout=0.0))


@pytest.mark.parametrize(
    "settings, tokens, rows, every, measured",
    [  # benchmarks/README.md: one H200, LoRA of rank 64 without dropout, eight images of 14 questions
        (LORA, 8064, 112, 1, 25.5),
        (LORA, 8064, 112, 2, 47.1),
        (LORA, 8064, 112, None, 70.1),
        (LORA, 16128, 224, 1, 29.6),
        (LORA, 2870, 112, 1, 22.9),
        (Sft(lora=Lora(dropout=0.0, quantize="4bit")), 760, 1, 1, 11.2),
    ],
)
def test_the_peaks_of_an_h200_are_met(dense, settings, tokens, rows, every, measured):
    assert gib(dense, settings, tokens=tokens, rows=rows, every=every) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    "settings, gpus, stated",
    [  # the authors', A100, batch 1, in GB over all GPUs; of which rank they do not say
        (Sft(lora=Lora(rank=8)), 1, 21),
        (Sft(method="full", gpus=4, strategy="zero2"), 4, 280),
        (Sft(method="full", gpus=4, strategy="zero3"), 4, 192),
    ],
)
def test_the_authors_figures_are_near(dense, settings, gpus, stated):
    assert gpus * gib(dense, settings, gpus) == pytest.approx(stated, rel=0.1)


def test_parameters_are_those_that_are_known(dense, experts):
    assert dense.total == pytest.approx(10.29e9, rel=1e-3)
    assert dense.numbers["language layers"] + dense.numbers["embeddings"] == pytest.approx(8.78e9, rel=1e-3)
    assert dense.numbers["vision tower"] + dense.numbers["merger"] == pytest.approx(0.89e9, rel=5e-3)
    assert experts.total == pytest.approx(106e9, rel=0.02)
    both = experts.numbers["embeddings"] + experts.numbers["head"]
    assert experts.active + both == pytest.approx(12e9, rel=0.15)  # A12B
    assert (dense.cache_bytes(), experts.cache_bytes()) == (40960, 188416)  # as config.yaml says


def test_trained_numbers_are_pefts(dense):
    way = Way(LORA, 1, 1, 1)
    layer = 64 * (2 * 8192 + 2 * (4096 + 256) + (4096 + 27392) + (13696 + 4096))
    assert needs.trained(dense, way) == 40 * layer
    full = Way(Sft(method="full", freeze_vision=False), 1, 1, 1)
    assert needs.trained(dense, full) == dense.total


def test_what_is_divided_is_divided(experts):
    settings = Sft(strategy="zero3", gpus=8)
    one, eight = (needs.needs(experts, Way(settings, count, 2000, 8)) for count in (1, 8))
    assert {kind for kind in one if one[kind] > eight[kind]} == {"weights", "gradients", "optimiser"}
    assert one["weights"] == 8 * eight["weights"]
    offloaded = needs.needs(experts, Way(Sft(strategy="zero3_offload"), 8, 2000, 8))
    assert offloaded["weights"] == offloaded["optimiser"] == 0


def test_an_epoch_takes_what_an_h200_took(dense):
    """8,013 unique tokens a second at 768 px with 14 questions, all recomputed; 111.7 rows (benchmarks/README.md)."""
    rows = Rows(rows=1120, images=80, text=8013 / 111.7 - 729 / 14, image=729, largest=729, source="")
    way = Way(LORA.model_copy(update={"rows_per_image": 14, "batch_size": 112}), 1, 8064, 112)
    assert 1120 / speed.epoch_seconds(dense, way, rows, speed.H200) == pytest.approx(111.7, rel=0.02)
    trained = way.settings.model_copy(update={"lora": Lora(vision=True)})
    assert speed.operations(dense, trained, rows) > speed.operations(dense, way.settings, rows)


@pytest.mark.parametrize("version", ["4.1v", "4.5v"])
def test_what_a_plan_reads_is_what_the_shapes_count(version, dense, experts):
    built, read = {"4.1v": dense, "4.5v": experts}[version], sizes.published(version)
    assert read.numbers == built.numbers
    assert (read.active, read.cache_bytes()) == (built.active, built.cache_bytes())
    assert read.image_tokens(768) == built.image_tokens(768) == 729
