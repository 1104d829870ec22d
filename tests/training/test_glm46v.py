"""A checkpoint that names transformers' own class of 4.6V trains as one of 4.1V's class: the modules are the same."""

import shutil

import pytest
import torch
from dialogues import MODE, draw_images, some_records
from transformers import AutoModelForImageTextToText, Glm46VConfig, Glm46VForConditionalGeneration

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Run
from workflow_scripts.models import loading, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages.sft import stage as sft

FLASH = VERSIONS["4.6v-flash"]


def renamed(folder) -> None:
    """The stand-in in `folder` as glm46v."""
    plain = standins.pretrained_model(FLASH)
    told = plain.config.to_dict()
    tokens = {key: value for key, value in told.items() if key.endswith("_token_id")}
    config = Glm46VConfig(text_config=told["text_config"], vision_config=told["vision_config"], **tokens)
    model = Glm46VForConditionalGeneration(config).float()
    model.load_state_dict(plain.state_dict())
    model.generation_config = plain.generation_config
    model.save_pretrained(folder)


def test_it_trains_and_is_loaded_as_its_twin(workplace):
    place, losses, tuned = workplace, [], []
    place.run = Run("rad", "4.6v-flash", MODE)
    place.layout.data(place.run).mkdir(parents=True)
    images = draw_images(place.layout.data(place.run))
    place.write("train", some_records("4.6v-flash", images, questions=4))
    for change in (None, renamed):
        standins.save(FLASH, MODE, place.model)
        shutil.rmtree(
            place.layout.trained("sft", place.run), ignore_errors=True
        )  # which is of the same weights
        if change:
            change(place.model)
        losses.append(sft(place.settings, place.layout, place.run, place.model)["final_loss"])
        tuned.append(
            loading.merged(place.layout.trained("sft", place.run), torch.float32, torch.device("cpu"))
        )
    assert loading.model_type(place.model) == "glm46v"
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for one, other in zip(*(model.parameters() for model in tuned), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    AutoModelForImageTextToText.from_pretrained(place.model)
    with pytest.raises(UserError, match="model_type is glm46v.*take --model_version 4.6v-flash"):
        loading.check_version(place.model, VERSIONS["4.1v"])
