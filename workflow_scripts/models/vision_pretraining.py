"""Teach a stand-in's vision tower what phantoms show, before any language: a real model's tower is pretrained too.

Which facts hold is read off the mean of an image's tokens by one linear layer, which is then thrown away. So an
untrained text layer, whose attention is even, finds everything that it is to speak of in what it sees.
"""

import logging

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from workflow_scripts.datasets import phantoms
from workflow_scripts.models import standins

logger = logging.getLogger(__name__)

STEPS = 800
BATCH = 24
LEARNING_RATE = 3e-3

Fact = tuple[str, str]


def train(tower: torch.nn.Module, image_processor, seeds: range) -> None:
    """Train `tower` on images of `seeds`, each seen once; the log says for how many all facts are right."""
    classes = _classes(seeds)
    width = tower(**pixels([phantoms.scene(seeds[0])], image_processor)).pooler_output.shape[-1]
    reader = torch.nn.Linear(width, len(classes))
    parameters = [*tower.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS, pct_start=0.1)
    right = 0.0
    for step in range(1, STEPS + 1):
        scenes = list(map(phantoms.scene, seeds[(step - 1) * BATCH : step * BATCH]))
        tokens = tower(**pixels(scenes, image_processor)).pooler_output
        logits = reader(tokens.reshape(BATCH, -1, width).mean(dim=1))
        shown = torch.tensor([[fact in _facts(scene) for fact in classes] for scene in scenes])
        loss = binary_cross_entropy_with_logits(logits, shown.float(), reduction="sum") / BATCH
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        right += (((logits > 0) == shown).all(dim=1).float().mean().item() - right) / min(step, 50)
        if step % 50 == 0:
            logger.info("vision step %d/%d, %.0f %% of images right", step, STEPS, 100 * right)


def pixels(scenes: list[phantoms.Scene], image_processor) -> dict[str, torch.Tensor]:
    """The drawn scenes as a vision tower takes them."""
    images = [phantoms.draw(scene, standins.IMAGE_SIDE) for scene in scenes]
    processed = image_processor(images, return_tensors="pt")
    return {"hidden_states": processed["pixel_values"], "grid_thw": processed["image_grid_thw"]}


def _classes(seeds: range) -> list[Fact]:
    return sorted({fact for scene in map(phantoms.scene, seeds[:1000]) for fact in _facts(scene)})


def _facts(scene: phantoms.Scene) -> set[Fact]:
    return {("family", scene.family), *phantoms.facts(scene).items()}
