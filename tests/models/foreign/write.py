"""Write the models of this folder anew: `python tests/models/foreign/write.py SCRATCH TOOL BIN ARCHITECTURE …`.

TOOL is a folder's name here, BIN the `bin` of the environment it is installed in, SCRATCH an empty folder. README.md
says which environments those are, and what is kept.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import validate
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS, Version
from workflow_scripts.stages import convert, download

HERE = Path(__file__).resolve().parent
SETTINGS = {"datasets": {"slake": {"reader": "slake", "embedded": 12}}, "tracking": []}
# What loading reads; tokenizer.json is the stand-ins' own.
KEPT = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)


def save_base(version: Version, folder: Path) -> None:
    """A stand-in of few weights, random ones; like its original, that of 4.1V base has no chat template."""
    config = standins.model_config(version)
    hidden = 8 if version.architecture == "glm4v_moe" else 4  # experts want rows of 16 bytes
    text = {
        "hidden_size": hidden,
        "head_dim": hidden,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "initializer_range": 0.5,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 4 / hidden,
            "mrope_section": [1, 1, 0],
        },
    }
    if version.architecture == "glm4v_moe":
        text["moe_intermediate_size"] = 8
    vision = {
        "depth": 1,
        "hidden_size": 4,
        "num_heads": 1,
        "intermediate_size": 8,
        "out_hidden_size": hidden,
        "initializer_range": 0.5,
    }
    for part, values in ((config.text_config, text), (config.vision_config, vision)):
        for name, value in values.items():
            setattr(part, name, value)
    torch.manual_seed(42)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = standins.stops(version)
    model.save_pretrained(folder)
    standins.processor(version, with_template=version.hybrid).save_pretrained(folder)


def llama_factory(data: Path, run: Run, method: str, base: str, output: str) -> list[str]:
    """Its command; an adapter leaves the vision tower alone, whose `all` would target a norm."""
    template = "glm4v" if run.model_version == "4.1v" else "glm4_5v"
    vision = "false" if method == "full" else "true"
    return (
        f"llamafactory-cli train --stage sft --do_train true --finetuning_type {method} --model_name_or_path {base} "
        f"--output_dir {output} --template {template} --dataset_dir {data} --dataset {run}_train --max_samples 4 "
        "--cutoff_len 512 --max_steps 2 --per_device_train_batch_size 2 --learning_rate 0.01 --lora_rank 2 "
        f"--freeze_vision_tower {vision} --freeze_multi_modal_projector {vision} --bf16 true --use_cpu true "
        "--report_to none --save_strategy no"
    ).split()


def ms_swift(data: Path, run: Run, method: str, base: str, output: str) -> list[str]:
    """Its command. Its template `glm4v` names image tokens by the real tokenizer's numbers; `glm4_5v` by their text."""
    return (
        f"env ROOT_IMAGE_DIR={data} swift sft --tuner_type {method} --model {base} --output_dir {output} "
        f"--model_type {VERSIONS[run.model_version].architecture} --template glm4_5v --dataset {data}/train.jsonl#4 "
        "--max_steps 2 --per_device_train_batch_size 1 --gradient_accumulation_steps 1 --learning_rate 0.01 "
        "--lora_rank 2 --lora_dropout 0 --freeze_vit false --freeze_aligner false --gradient_checkpointing false --report_to none "
        "--torch_dtype bfloat16 --use_cpu true --use_hf true --add_version false --save_only_model true"
    ).split()


def write(scratch: Path, tool: str, binaries: Path, version: str) -> None:
    """Train a whole model, then an adapter upon it, and keep both with the tool's own answers."""
    run, layout = Run("slake", version, "thinking"), Layout(scratch / "results")
    settings = validate(SETTINGS, "write.py")
    download.download_source(settings, layout, "slake")
    convert.convert(settings, layout, run)
    work = scratch / tool / VERSIONS[version].architecture
    save_base(VERSIONS[version], work / "base")
    command = llama_factory if tool.startswith("llama") else ms_swift
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def called(arguments: list[str]) -> str:
        return subprocess.run(
            arguments, cwd=work, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    for method, base, output in (("full", "base", "whole"), ("lora", "whole", "adapter")):
        called(command(layout.data(run).resolve(), run, method, base, output))
        for checkpoint in (work / output).glob("checkpoint-*"):  # ms-swift saves in there
            shutil.copytree(checkpoint, work / output, dirs_exist_ok=True)
    answers = called(["python", str(HERE / "asking.py"), "whole", "adapter"]).splitlines()[-1]

    kept = HERE / tool / VERSIONS[version].architecture
    shutil.rmtree(kept, ignore_errors=True)
    for output in ("whole", "adapter"):
        (kept / output).mkdir(parents=True)
        for path in (work / output).iterdir():
            if path.name in KEPT:
                shutil.copyfile(path, kept / output / path.name)
    config = kept / "adapter/adapter_config.json"  # ms-swift names the base by its whole path
    files.write_json(config, files.read_json(config) | {"base_model_name_or_path": "whole"})
    (kept / "answers.json").write_text(answers + "\n")


if __name__ == "__main__":
    scratch, tool, binaries, *architectures = sys.argv[1:]
    for name, version in VERSIONS.items():
        if version.architecture in architectures:
            write(Path(scratch).resolve(), tool, Path(binaries).resolve(), name)
