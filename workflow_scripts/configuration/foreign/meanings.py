"""What one key of another trainer becomes here."""

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any, NamedTuple, get_args

from workflow_scripts.configuration.pass_through import DpoTrainerKey, TrainerKey
from workflow_scripts.configuration.settings import Loss

# By path in our configuration; "{stage}" is sft or dpo.
Ours = dict[str, Any]
Rule = Callable[[Any], Ours]


class NoCounterpart(Exception):
    """The value cannot be had here; the message says why, or what to do."""


class NotNeeded(Exception):
    """Nothing is to be done for it here; the message says why."""


class Trainer(NamedTuple):
    """Another trainer: the keys by which its files are known, what each key becomes, and the defaults that differ from ours.

    `together` are the keys that `sections` makes something of together.
    """

    name: str
    marks: frozenset[str]
    rules: Mapping[str, Rule]
    defaults: Mapping[str, Any]
    together: frozenset[str]


def same(path: str) -> Rule:
    """The same value, at `path`."""
    return lambda value: {path: value}


def none(why: str) -> Rule:
    """No counterpart, unless the value says that it is not used."""

    def rule(value: Any) -> Ours:
        if value in (None, False, "", 0, [], "none", "None"):
            raise NotNeeded("it was not used")
        raise NoCounterpart(why)

    return rule


def needless(why: str) -> Rule:
    """Nothing is to be done for it, whatever its value."""

    def rule(value: Any) -> Ours:
        raise NotNeeded(why)

    return rule


def positive(path: str) -> Rule:
    """A number at `path`; -1 or 0 means none."""

    def rule(value: Any) -> Ours:
        if not value or value < 0:
            raise NotNeeded("it was not used")
        return {path: value}

    return rule


def whole(path: str) -> Rule:
    """A whole number at `path`; a share of all steps has no counterpart."""

    def rule(value: Any) -> Ours:
        if isinstance(value, float) and 0 < value < 1:
            raise NoCounterpart(f"a share of the steps; give {path} in steps")
        return positive(path)(int(value) if value else value)

    return rule


def side(value: Any) -> Ours:
    """An area in pixels as the side of the square that has it."""
    return {"data.max_image_side": isqrt(int(value))}


def deepspeed(value: Any) -> Ours:
    """By the name of ms-swift's preset or of LLaMA-Factory's file, `ds_z3_offload_config.json`."""
    if not value:
        raise NotNeeded("it was not used")
    name = str(value).rsplit("/", 1)[-1].lower() if not isinstance(value, dict) else ""
    for number in "0123":
        if f"zero{number}" in name or f"z{number}" in name:
            found = f"zero{number}" + ("_offload" if "offload" in name else "")
            known = {
                "zero0": "ddp",
                "zero1": "zero1",
                "zero2": "zero2",
                "zero3": "zero3",
                "zero3_offload": "zero3_offload",
            }
            if found in known:
                return {"{stage}.strategy": known[found]}
            raise NoCounterpart(f"{found}; strategies are ddp, zero1 to zero3, zero3_offload and fsdp")
    raise NoCounterpart(
        "a configuration of its own; choose {stage}.strategy: zero1, zero2, zero3 or zero3_offload"
    )


def precision(value: Any) -> Ours:
    """Of torch_dtype, or of a flag."""
    names = {"bfloat16": "bf16", "float32": "fp32", True: "bf16"}
    if value in (None, False, "auto"):
        raise NotNeeded("bf16 on a GPU is the default")
    if value not in names:
        raise NoCounterpart("training is in bf16 or fp32 here, for fp16 has too small a range")
    return {"{stage}.precision": names[value]}


def losses(value: Any) -> Ours:
    """One loss of DPO, or several of the same weight."""
    names = [value] if isinstance(value, str) else list(value)
    for name in names:
        if name not in get_args(Loss):
            raise NoCounterpart(f"{name} is no loss of TRL's DPOTrainer")
    return {"dpo.loss": dict.fromkeys(names, 1.0)}


def trackers(value: Any) -> Ours:
    """Those of report_to that are known here."""
    asked = [value] if isinstance(value, str) else list(value or [])
    asked = [name for name in asked if name != "none"]
    unknown = [name for name in asked if name not in ("mlflow", "tensorboard", "wandb")]
    if unknown:
        raise NoCounterpart(f"{', '.join(unknown)}: trackers are mlflow, tensorboard and wandb")
    return {"tracking": asked}


def share(value: Any) -> Ours:
    """A share of the train rows for validation, of which we take whole images."""
    if not value:
        raise NotNeeded(
            "data.validation_share takes a tenth of the images where a set has no validation split"
        )
    if value >= 1:
        raise NoCounterpart("a number of rows; data.validation_share is a share of the images")
    return {"data.validation_share": value}


def every_projection(value: Any) -> Ours:
    """The modules that LoRA adapts, which here are all of the text layers."""
    names = [value] if isinstance(value, str) else list(value)
    if names in (["all"], ["all-linear"]):
        raise NotNeeded("every projection of the text layers has an adapter")
    raise NoCounterpart(
        "every projection of the text layers has an adapter; lora.peft: {exclude_modules: …} leaves some out"
    )


def modules(value: Any) -> Ours:
    """Modules that are trained whole beside an adapter."""
    if not value:
        raise NotNeeded("it was not used")
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    return {"{stage}.lora.peft.modules_to_save": names}


def unless(path: str) -> Rule:
    """The opposite of a flag, at `path`."""
    return lambda value: {path: not value}


def flag(path: str, meaning: Any = True) -> Rule:
    """`meaning` at `path` where the flag is set."""

    def rule(value: Any) -> Ours:
        if not value:
            raise NotNeeded("it was not used")
        return {path: meaning}

    return rule


_PLACES = "results/ has a place for everything; `results:` moves it"
_TREES = "batches are trees of shared prefixes, which need neither packing nor padding"

# Keys of transformers' TrainingArguments, which both trainers take.
OF_TRANSFORMERS: dict[str, Rule] = {
    "learning_rate": same("{stage}.learning_rate"),
    "num_train_epochs": same("{stage}.epochs"),
    "max_steps": positive("{stage}.max_steps"),
    "warmup_ratio": same("{stage}.warmup"),
    "warmup_steps": none("give {stage}.warmup as a share of the steps"),
    "weight_decay": same("{stage}.weight_decay"),
    "logging_steps": whole("{stage}.log_steps"),
    "save_steps": whole("{stage}.save_steps"),
    "seed": same("seed"),
    "data_seed": needless("`seed` is of the data order too"),
    "bf16": precision,
    "fp16": none("training is in bf16 or fp32 here"),
    "torch_dtype": precision,
    "gradient_checkpointing": same("{stage}.gradient_checkpointing"),
    "deepspeed": deepspeed,
    "fsdp": flag("{stage}.strategy", "fsdp"),
    "report_to": trackers,
    "output_dir": needless(_PLACES),
    "overwrite_output_dir": needless("a finished training of the same settings is kept, any other is written anew"),
    "resume_from_checkpoint": needless("an interrupted training goes on from its last checkpoint by itself"),
    "run_name": needless("a run is named {dataset}_{model_version}_{mode}"),
    "logging_dir": needless(_PLACES),
    "do_train": needless("the target says what is done"),
    "do_eval": needless("{stage}.validation_steps says whether"),
    "per_device_eval_batch_size": needless("validation fills its passes by {stage}.micro_batch_tokens"),
    "save_strategy": needless("checkpoints are written each {stage}.save_steps"),
    "save_total_limit": needless("two checkpoints are kept while a training runs"),
    "save_only_model": needless("a finished run keeps the model alone"),
    "logging_first_step": needless("it is always logged"),
    "load_best_model_at_end": needless("with {stage}.validation_steps the best model is kept"),
    "metric_for_best_model": needless("it is the validation loss"),
    "greater_is_better": needless("it is the validation loss"),
    "ddp_timeout": needless("it is set"),
    "dataloader_num_workers": needless("it is set"),
    "dataloader_pin_memory": needless("it is set"),
    "remove_unused_columns": needless("records hold what is needed"),
    "group_by_length": needless("batches are planned by images and tokens"),
    "packing": needless(_TREES),
    "neftune_noise_alpha": none("noise of a row cannot be shared by rows of one prefix"),
    **{key: same(f"{{stage}}.trainer.{key}") for key in get_args(TrainerKey)},
}  # fmt: skip
OF_DPO = {key: same(f"dpo.trainer.{key}") for key in set(get_args(DpoTrainerKey)) - set(get_args(TrainerKey))}
