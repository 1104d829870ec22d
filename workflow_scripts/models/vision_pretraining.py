"""Teach a stand-in's vision tower what phantoms show, before any language: a real model's tower is pretrained too.

Each fact is read off the mean of an image's tokens by a linear layer, which is then thrown away. So an untrained
text layer, whose attention is even, finds everything that it is to speak of in what it sees.
"""

import logging
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from workflow_scripts.datasets import phantoms
from workflow_scripts.models import standins
from workflow_scripts.models.interfaces import ImageProcessor

logger = logging.getLogger(__name__)

STEPS = 800
BATCH = 24
LEARNING_RATE = 3e-3
UNSAID = -100  # the class of a fact that an image has not


def train(tower: Any, image_processor: ImageProcessor, seeds: range) -> None:
    """Train `tower` on images of `seeds`, each seen once; the log says how many of the facts are told right."""
    values = _values(seeds)
    width = tower.config.out_hidden_size
    readers = torch.nn.ModuleDict(
        {name: torch.nn.Linear(width, len(known)) for name, known in values.items()}
    )
    parameters = [*tower.parameters(), *readers.parameters()]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS, pct_start=0.1)
    right = 0.0
    for step in range(1, STEPS + 1):
        scenes = list(map(phantoms.scene, seeds[(step - 1) * BATCH : step * BATCH]))
        images = [phantoms.draw(scene, standins.IMAGE_SIDE) for scene in scenes]
        pixels = image_processor(images, return_tensors="pt")
        # [images * tokens, hidden size of the text layers]
        tokens = tower(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"]).pooler_output
        seen = tokens.reshape(BATCH, -1, width).mean(dim=1)
        logits = {name: reader(seen) for name, reader in readers.items()}
        shown = {name: _classes(scenes, name, known) for name, known in values.items()}
        losses = [cross_entropy(logits[name], shown[name], reduction="sum") for name in values]
        loss: Any = torch.stack(losses).sum() / BATCH
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        hits = torch.cat([(logits[name].argmax(1) == shown[name])[shown[name] != UNSAID] for name in values])
        right += (hits.float().mean().item() - right) / min(step, 50)
        if step % 50 == 0:
            logger.info("vision step %d/%d, %.1f %% of facts right", step, STEPS, 100 * right)


def _values(seeds: range) -> dict[str, list[str]]:
    """Everything that a fact may be, by its name."""
    values: dict[str, list[str]] = {}
    for scene in map(phantoms.scene, seeds[:1000]):
        for name, value in _facts(scene).items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return values


def _classes(scenes: list[phantoms.Scene], name: str, values: list[str]) -> torch.Tensor:
    """The index in `values` of each scene's fact `name`, UNSAID where it has none."""
    told = [_facts(scene).get(name) for scene in scenes]
    return torch.tensor([UNSAID if value is None else values.index(value) for value in told])


def _facts(scene: phantoms.Scene) -> dict[str, str]:
    return {"family": scene.family, **phantoms.facts(scene)}
