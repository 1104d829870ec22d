"""Stand-ins, questions of every shape about a few images, and what transformers' `generate` answers, one by one."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import GenerationConfig, set_seed

from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels, batch

TOKENS = 12


@dataclass
class Asked:
    """A model of one version, and records with the images in `folder`."""

    model: object
    dialogue: Dialogue
    folder: Path
    records: list[dict]

    def generator(self, budget: int = 2**17, tokens: int = TOKENS, **options) -> Generator:
        made = Generator(self.model, self.dialogue.processor, self.dialogue, budget, tokens, **options)
        # Weights are random: an eighth of the vocabulary ends an answer, so that rows end one after the other.
        made.limits = replace(made.limits, stops=made.limits.stops | set(range(0, 1500, 8)))
        return made

    @cached_property
    def one_by_one(self) -> list[tuple[str, int]]:
        """(text, how many tokens) by greedy `generate`, a question at a time."""
        generator = self.generator()
        self.model.generation_config = GenerationConfig()
        return [self._generated(generator, record) for record in self.records]

    def _generated(self, generator: Generator, record: dict) -> tuple[str, int]:
        prompt = generator._prompt(0, record, self.folder)
        processor = self.dialogue.processor
        inputs = batch([(prompt.ids, list(prompt.images))], processor, Pixels(processor.image_processor))
        written = self.model.generate(
            **inputs, do_sample=False, max_new_tokens=TOKENS, eos_token_id=sorted(generator.limits.stops)
        )[0, inputs["input_ids"].shape[1] :].tolist()
        kept = written[:-1] if written[-1] in generator.limits.stops - generator.kept_stops else written
        return processor.tokenizer.decode(kept), len(written)


def make(version: str, mode: str, folder: Path, adapted: bool = False) -> Asked:
    set_seed(0)
    model = standins.untrained_model(VERSIONS[version]).eval()
    if adapted:
        targets = ["q_proj", "v_proj", "lm_head"]
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)).eval()
    processor = standins.processor(VERSIONS[version])
    for number, size in enumerate(((112, 112), (224, 70), (112, 150))):
        image = Image.effect_mandelbrot(size, (-2 + number / 3, -1, 1, 1), 40 + 10 * number)
        image.convert("RGB").save(folder / f"{number}.png")
    records = _records(VERSIONS[version].answer_format(mode).write)
    return Asked(model, Dialogue(processor, version, mode), folder, records)


def _records(write) -> list[dict]:
    def record(*questions: str, images: tuple[int, ...] = (0,)) -> dict:
        messages = []
        for question in questions:
            messages += [{"role": "user", "content": question}]
            messages += [{"role": "assistant", "content": write("left lung", "It is dark.")}]
        messages[0]["content"] = "<image>" * len(images) + messages[0]["content"]
        return {"messages": messages, "images": [f"{image}.png" for image in images]}

    found = [
        record("is there a"),
        record("is there a nodule"),
        record("is there a nodule in the left lung, or in the right one?", images=(1,)),
        record("what"),
        record("which organ is this", images=(1,)),
        record("which organ is this", "and is it healthy?"),
        record("which organ is this", "and what does it show, besides?"),
        record("is there a nodule"),  # once more
        record("compare", images=(0, 2)),
        record("compare them, please", images=(0, 2)),
        record("compare them the other way round", images=(2, 0)),
        record("name the plane", images=(2,)),  # alone with its image
        record("no picture"),
        record("no picture, and more words than the others have, so that they are padded"),
    ]
    for last in found[-2:]:
        last["images"] = []
        last["messages"][0]["content"] = last["messages"][0]["content"].replace("<image>", "")
    return [{**entry, "id": f"row-{number}"} for number, entry in enumerate(found)]


@pytest.fixture(scope="module", params=["4.1v-thinking", "4.5v-base", "4.1v-base-adapter"])
def asked(request, tmp_path_factory) -> Asked:
    version, mode, *adapter = request.param.split("-")
    return make(version, mode, tmp_path_factory.mktemp("images"), bool(adapter))


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Asked:
    return make("4.1v", "thinking", tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield
