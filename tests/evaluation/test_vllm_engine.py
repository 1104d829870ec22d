"""vLLM's engine, of which a stand-in with its names and arguments generates with transformers."""

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.backends import vllm_engine
from workflow_scripts.evaluation.backends.vllm_engine import VllmModel
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.models import loading, pixels, processors, standins
from workflow_scripts.models.adapters import lora_config
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue

SIDE = 112


class SamplingParams:
    """The arguments of vLLM 0.22.1 that are in use here; any other is an error."""

    def __init__(
        self,
        *,
        n=1,
        temperature=1.0,
        seed=None,
        max_tokens=16,
        stop_token_ids=None,
        skip_special_tokens=True,
        include_stop_str_in_output=False,
    ):
        assert n == 1 or temperature
        self.__dict__ |= {key: value for key, value in locals().items() if key != "self"}


class LoRARequest:
    def __init__(self, lora_name, lora_int_id, lora_path):
        self.lora_name, self.lora_int_id, self.lora_path = lora_name, lora_int_id, lora_path


class LLM:
    """Runs a prompt's tokens, with each image's one placeholder, and its images, greedily."""

    made: ClassVar[list] = []

    def __init__(
        self,
        model,
        *,
        dtype,
        tensor_parallel_size,
        enable_prefix_caching,
        limit_mm_per_prompt,
        enable_lora=False,
        max_lora_rank=16,
        max_model_len=None,
    ):
        self.arguments = {key: value for key, value in locals().items() if key != "self"}
        LLM.made.append(self)
        self.calls = []

    def generate(self, prompts, sampling_params, *, use_tqdm, lora_request=None):
        self.calls.append(SimpleNamespace(prompts=prompts, sampling=sampling_params, lora=lora_request))
        path = lora_request.lora_path if lora_request else self.arguments["model"]
        self.model = loading.model(path, torch.float32, torch.device("cpu"))
        return [self._one(*asked) for asked in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt, sampling):
        processor = AutoProcessor.from_pretrained(self.arguments["model"])  # which does not know our limit
        made = [
            processor.image_processor([image], return_tensors="pt")
            for image in prompt["multi_modal_data"]["image"]
        ]
        tokens = [
            int(image["image_grid_thw"].prod()) // processor.image_processor.merge_size**2 for image in made
        ]
        ids = pixels.expand(prompt["prompt_token_ids"], tokens, processor.image_token_id)
        inputs = pixels.pad([ids], processor, "left")
        inputs["pixel_values"] = torch.cat([image["pixel_values"] for image in made])
        inputs["image_grid_thw"] = torch.cat([image["image_grid_thw"] for image in made])
        written = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=sampling.stop_token_ids,
            pad_token_id=processor.tokenizer.pad_token_id,
        )[0, len(ids) :].tolist()
        stopped = written[-1] in sampling.stop_token_ids
        return SimpleNamespace(
            outputs=[
                SimpleNamespace(
                    token_ids=written,
                    finish_reason="stop" if stopped else "length",
                    stop_reason=written[-1] if stopped else None,
                )
                for _ in range(sampling.n)
            ]
        )


@pytest.fixture
def vllm(monkeypatch):
    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams, package.__version__ = LLM, SamplingParams, "0.22.1"
    request.LoRARequest = LoRARequest
    for name, module in (("vllm", package), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    LLM.made.clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A stand-in on disk, with images beside it."""
    folder = tmp_path_factory.mktemp("model")
    version = VERSIONS["4.1v"]
    torch.manual_seed(3)
    standins.untrained_model(version).save_pretrained(folder)
    processor = standins.processor(version)
    processor.image_processor.size = {
        "shortest_edge": 2 * 56**2,
        "longest_edge": 2 * 448**2,
    }  # a range, as real ones
    processor.save_pretrained(folder)
    draw = np.random.default_rng(1)
    for name, size in (("a.png", (150, 250, 3)), ("b.png", (60, 60, 3))):
        Image.fromarray(draw.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def dialogue(model):
    return Dialogue(processors.load(model, VERSIONS["4.1v"], SIDE), "4.1v", "base")


def records():
    words = ("Which modality?", "Where is it?", "What is seen?")
    return [
        {
            "id": f"{image} {word}",
            "images": [image],
            "messages": [{"role": "user", "content": f"<image>{word}"}],
        }
        for word in words
        for image in ("b.png", "a.png")
    ]


def by_transformers(path, dialogue, model, blank=False):
    loaded = loading.model(path, torch.float32, torch.device("cpu"))
    return Generator(loaded, dialogue.processor, dialogue, 4096, 6).answer(records(), model, blank)


def in_order(engine, model, **options):
    found = dict(engine.stream(records(), model, **options))
    return [found[index] for index in range(len(found))]


@pytest.mark.parametrize("blank", [False, True])
def test_it_is_given_the_tokens_and_pixels_that_the_generator_runs(vllm, model, dialogue, blank):
    engine = VllmModel(model, dialogue, 2, 6, {"max_model_len": 4096})
    assert in_order(engine, model, blank=blank) == by_transformers(model, dialogue, model, blank)
    (made,) = LLM.made
    assert made.arguments == {
        "model": str(model),
        "dtype": "bfloat16",
        "tensor_parallel_size": 2,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enable_lora": False,
        "max_lora_rank": 16,
        "max_model_len": 4096,
    }
    (call,) = made.calls
    assert call.lora is None and {sampling.temperature for sampling in call.sampling} == {0.0}
    assert all(not sampling.skip_special_tokens for sampling in call.sampling)
    assert [prompt["multi_modal_data"]["image"][0].size for prompt in call.prompts] == sorted(
        (prompt["multi_modal_data"]["image"][0].size for prompt in call.prompts), reverse=True
    )  # an image's questions come together


def test_questions_are_given_in_chunks(vllm, model, dialogue, monkeypatch):
    monkeypatch.setattr(vllm_engine, "CHUNK", 4)
    engine = VllmModel(model, dialogue, 1, 2, {})
    assert len(in_order(engine, model)) == 6
    assert [len(call.prompts) for call in LLM.made[0].calls] == [4, 2]


def test_samples_have_a_seed_of_their_question(vllm, model, dialogue):
    engine = VllmModel(model, dialogue, 1, 2, {})
    found = in_order(engine, model, temperature=0.5, samples=3, seed=1)
    assert {len(generations) for generations in found} == {3}
    sampling = LLM.made[0].calls[0].sampling
    assert len({each.seed for each in sampling}) == 6 and {each.n for each in sampling} == {3}


def adapter(model, folder, vision=False, rank=3):
    from peft import get_peft_model

    settings = SimpleNamespace(
        rank=rank, alpha=64, dropout=0.0, vision=vision, peft={"init_lora_weights": False}
    )
    loaded = loading.model(model, torch.float32, torch.device("cpu"))
    torch.manual_seed(1)
    get_peft_model(loaded, lora_config(loaded, settings)).save_pretrained(folder)
    loading.name_base(folder, model)
    return folder


def test_an_adapter_is_served_upon_its_base(vllm, model, dialogue, tmp_path):
    path = adapter(model, tmp_path / "adapter")
    engine = VllmModel(path, dialogue, 1, 6, {})
    assert in_order(engine, model) == by_transformers(path, dialogue, model)
    assert LLM.made[0].arguments["enable_lora"] and LLM.made[0].arguments["max_lora_rank"] == 8
    request = LLM.made[0].calls[0].lora
    assert (request.lora_name, request.lora_int_id, request.lora_path) == ("adapter", 1, str(path))


def test_an_adapter_that_vllm_would_ignore_a_part_of_is_refused(vllm, model, dialogue, tmp_path):
    path = adapter(model, tmp_path / "adapter", vision=True)
    with pytest.raises(UserError, match="on the vision tower too, which vLLM would ignore"):
        VllmModel(path, dialogue, 1, 6, {})


def test_a_rank_beyond_vllms_is_refused(vllm, model, dialogue, tmp_path):
    path = adapter(model, tmp_path / "adapter")
    config = files.read_object(path / "adapter_config.json")
    files.write_json(path / "adapter_config.json", config | {"rank_pattern": {"q_proj": 600}})
    with pytest.raises(UserError, match="rank 600; vLLM serves at most rank 512"):
        VllmModel(path, dialogue, 1, 6, {})


@pytest.mark.parametrize(
    ("ids", "reason", "stop", "text", "truncated"),
    [
        ("<answer>CT</answer>", "stop", "</answer>", "<answer>CT</answer>", False),
        ("<answer>CT", "stop", "</answer>", "<answer>CT</answer>", False),  # left out of the tokens
        ("<answer>CT</answer><|user|>", "stop", "<|user|>", "<answer>CT</answer>", False),
        ("<answer>CT</answer><|endoftext|>", "stop", None, "<answer>CT</answer>", False),
        ("<answer>CT", "length", None, "<answer>CT", True),
    ],
)
def test_a_stop_token_is_read_as_by_the_generator(vllm, model, dialogue, ids, reason, stop, text, truncated):
    words = dialogue.processor.tokenizer
    engine = VllmModel(model, dialogue, 1, 6, {})
    engine._stops |= {words.convert_tokens_to_ids("</answer>")}
    engine._kept_stops = {words.convert_tokens_to_ids("</answer>")}
    written = SimpleNamespace(
        token_ids=words.encode(ids, add_special_tokens=False),
        finish_reason=reason,
        stop_reason=words.convert_tokens_to_ids(stop) if stop else None,
    )
    generation = engine._read(written)
    assert (generation.text, generation.truncated) == (text, truncated)


def test_a_missing_package_is_a_line_that_says_what_to_install(model, dialogue, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"^evaluation\.backend vllm: [^\n]*pip install vllm[^\n]*$"):
        VllmModel(model, dialogue, 1, 6, {})
