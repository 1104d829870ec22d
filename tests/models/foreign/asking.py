"""One fixed question on a fixed image: what the tool's own libraries and ours must answer alike.

The tool's Python runs it as `asking.py WHOLE ADAPTER`, both folders, and prints the first logits of both as JSON.
"""

import inspect
import json
import sys
from typing import Any

import torch

KEPT = 16  # logits of the next token that are compared
PATCHES = 64  # 112 x 112 pixels, 16 tokens


def answer(model: Any) -> list[float]:
    """The first logits of the token that follows; `model` is whole or peft's, in float32."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = whole.config
    image = [
        config.image_start_token_id,
        *[config.image_token_id] * (PATCHES // 4),
        config.image_end_token_id,
    ]
    ids = torch.tensor([[300, 301, *image, 302, 303]])
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.linspace(-1, 1, PATCHES * 3 * 2 * 14 * 14).view(PATCHES, -1),
        "image_grid_thw": torch.tensor([[1, 8, 8]]),
    }
    if "mm_token_type_ids" in inspect.signature(whole.forward).parameters:  # since transformers 5
        given["mm_token_type_ids"] = (ids == config.image_token_id).int()
    with torch.no_grad():
        logits: list[float] = model.eval()(**given).logits[0, -1, :KEPT].tolist()
    return logits


if __name__ == "__main__":
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    folder, adapter = sys.argv[1:]
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    print(
        json.dumps({"whole": answer(loaded), "adapter": answer(PeftModel.from_pretrained(loaded, adapter))})
    )
