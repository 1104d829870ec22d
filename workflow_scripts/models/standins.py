"""Tiny stand-ins for the catalogue's checkpoints: real classes, the family's special tokens, 1.2 M parameters.

They are saved in the hub's layout and load through the code that loads the real checkpoints. Their weights can
describe phantoms but answer no question: LoRA then has something to adapt, as with a real base model.
`python -m workflow_scripts.models.pretraining` makes tokenizer and weights anew.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    Glm4vConfig,
    Glm4vMoeConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from workflow_scripts.models.catalogue import Version
from workflow_scripts.models.interfaces import Processor

FOLDER = Path(__file__).parent / "standin_weights"
TOKENIZER = FOLDER / "tokenizer.json"
IMAGE_SIDE = 112

SPECIAL_TOKENS = [
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>",
]  # fmt: skip
# The family marks thoughts and answers with tokens that are whole but not special: decoding keeps them.
MARKUP_TOKENS = ["<think>", "</think>", "<answer>", "</answer>"]
BOX_TOKENS = ["<|begin_of_box|>", "<|end_of_box|>"]
# In the order of the real tokenizer, where they follow the words.
ADDED_TOKENS = [*SPECIAL_TOKENS, *MARKUP_TOKENS, *BOX_TOKENS, "/nothink"]


def tokenizer() -> PreTrainedTokenizerFast:
    """The stand-ins' byte-level BPE; it pads on the left, as the hub's does."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER),
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=[*SPECIAL_TOKENS, *BOX_TOKENS],
    )


def processor(version: Version, with_template: bool = True) -> Processor:
    """Images are scaled to the area of 112 x 112 pixels: 16 tokens (`size` counts two frames)."""
    size = {"shortest_edge": 2 * IMAGE_SIDE**2, "longest_edge": 2 * IMAGE_SIDE**2}
    whole, image, video = (
        getattr(transformers, f"{version.processor}{kind}Processor") for kind in ("", "Image", "Video")
    )
    made: Any = whole(
        image_processor=image(size=size),
        tokenizer=tokenizer(),
        video_processor=video(size=size),
        chat_template=version.chat_template() if with_template else None,
    )
    found: Processor = made  # its attributes are set by name, which no type checker sees
    return found


def model_config(version: Version) -> Glm4vConfig | Glm4vMoeConfig:
    """The real architecture at 128 hidden units and 4 layers, 2 of vision."""
    words = tokenizer()
    identity = words.convert_tokens_to_ids
    text: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.08,  # about the width ** -0.5; 0.02 is for thousands of units
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 3, 3],  # sums to half of the 16 rotated dimensions of a head
        },
        "pad_token_id": words.pad_token_id,
        "eos_token_id": stops(version),
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "num_heads": 4,
        "initializer_range": 0.08,
        "intermediate_size": 256,
        "out_hidden_size": text["hidden_size"],
        "image_size": IMAGE_SIDE,
    }
    tokens: dict[str, Any] = {
        "image_token_id": identity("<|image|>"),
        "video_token_id": identity("<|video|>"),
        "image_start_token_id": identity("<|begin_of_image|>"),
        "image_end_token_id": identity("<|end_of_image|>"),
        "video_start_token_id": identity("<|begin_of_video|>"),
        "video_end_token_id": identity("<|end_of_video|>"),
    }
    if version.architecture == "glm4v_moe":
        experts = {
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        }
        return Glm4vMoeConfig(text_config=text | experts, vision_config=vision, **tokens)
    return Glm4vConfig(text_config=text, vision_config=vision, **tokens)


def stops(version: Version) -> list[int]:
    """The ids that end generation; in 4.1V's published list `</answer>` (151348) is one of them."""
    tokens = ["<|endoftext|>", "<|user|>", "<|observation|>"] + ["</answer>"] * version.tagged
    words = tokenizer()
    return [words.vocab[token] for token in tokens]


def untrained_model(version: Version) -> PreTrainedModel:
    """The model with fresh weights, in float32."""
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(
        model_config(version), dtype=torch.float32
    )
    # Where a patch lies counts as much as what it shows, from the first step on.
    positions: Any = model.get_submodule("model.visual.embeddings.position_embedding")
    torch.nn.init.normal_(positions.weight, std=0.5)
    model.generation_config.eos_token_id = stops(version)
    model.generation_config.pad_token_id = tokenizer().pad_token_id
    return model


def pretrained_model(version: Version) -> PreTrainedModel:
    """The stand-in as a user's training finds it, in float32."""
    model = untrained_model(version)
    weights = {name: tensor.float() for name, tensor in load_file(weights_file(version)).items()}
    model.load_state_dict(weights)
    return model


def weights_file(version: Version) -> Path:
    """Where the pretrained weights of a version's stand-in lie: one file for all of its architecture, and both modes."""
    return FOLDER / f"{version.architecture}.safetensors"


def save(version: Version, mode: str, folder: Path) -> None:
    """Write the stand-in of (version, mode) to `folder` in the hub's layout.

    Like its original, the stand-in of 4.1V base has no chat template.
    """
    pretrained_model(version).save_pretrained(folder)
    processor(version, with_template=version.hybrid or mode == "thinking").save_pretrained(folder)
