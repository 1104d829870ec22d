"""Write a slice of GLM-4.1V-9B: two text layers and two vision blocks of true width, random weights in bf16.

It is in the hub's layout, in shards, 1.4 GB, with the stand-in's tokenizer: what a CPU can train a few steps of.
`python -m benchmarks.true_width FOLDER`
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, set_seed

from benchmarks.common import LARGE_TEXT, LARGE_VISION
from workflow_scripts.base import files
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS

VERSION = VERSIONS["4.1v"]
LAYERS, BLOCKS = 2, 2
SHARD = "300MB"


def config() -> Any:
    """Glm4v's of that width, with the words of the stand-in."""
    found: Any = standins.model_config(VERSION)
    width = LARGE_TEXT["hidden_size"] // LARGE_TEXT["num_attention_heads"]
    shape = {"num_hidden_layers": LAYERS, "vocab_size": found.text_config.vocab_size, "head_dim": width}
    found.text_config.update(LARGE_TEXT | shape)
    found.text_config.rope_parameters["mrope_section"] = [8, 12, 12]
    found.vision_config.update(
        LARGE_VISION | {"depth": BLOCKS, "out_hidden_size": found.text_config.hidden_size, "image_size": 336}
    )
    return found


def write(folder: Path) -> Path:
    """The slice in `folder`, the same every time; returns it."""
    set_seed(0)
    with files.replacing_folder(folder) as place:
        model = AutoModelForImageTextToText.from_config(config(), dtype=torch.bfloat16)
        model.generation_config.eos_token_id = standins.stops(VERSION)
        model.generation_config.pad_token_id = standins.tokenizer().pad_token_id
        model.save_pretrained(place, max_shard_size=SHARD)
        standins.processor(VERSION, with_template=False).save_pretrained(place)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
