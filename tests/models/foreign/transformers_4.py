"""Write `transformers-4.57.6/` anew: an adapter as stock peft saved it on transformers 4, on all projections of an MoE.

To be run by the Python of such an environment: there each routed expert is a module of its own, with its own weights.
Its base is LLaMA-Factory's whole model, whose rotary embedding transformers 4 configures by other keys.
"""

import json
import shutil
from pathlib import Path

import torch
from asking import answer
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText

HERE = Path(__file__).resolve().parent
WHOLE = HERE / "llamafactory-0.9.5/glm4v_moe/whole"
TARGET = HERE / "transformers-4.57.6/glm4v_moe"

config = AutoConfig.from_pretrained(WHOLE)
rope = json.loads((WHOLE / "config.json").read_text())["text_config"]["rope_parameters"]
config.text_config.rope_scaling = {"rope_type": "default", "mrope_section": rope["mrope_section"]}
config.text_config.rope_theta = rope["rope_theta"]
config.text_config.partial_rotary_factor = rope["partial_rotary_factor"]


def whole():
    return AutoModelForImageTextToText.from_pretrained(WHOLE, config=config, dtype=torch.float32)


names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
adapted = get_peft_model(whole(), LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM"))
torch.manual_seed(42)
with torch.no_grad():
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.normal_()
shutil.rmtree(TARGET, ignore_errors=True)
adapted.save_pretrained(TARGET / "adapter")
(TARGET / "adapter/README.md").unlink()
settings = json.loads((TARGET / "adapter/adapter_config.json").read_text())
settings["base_model_name_or_path"] = "whole"
(TARGET / "adapter/adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
answers = {
    "whole": answer(whole()),
    "adapter": answer(PeftModel.from_pretrained(whole(), TARGET / "adapter")),
}
(TARGET / "answers.json").write_text(json.dumps(answers) + "\n")
