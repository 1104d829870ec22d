"""What the keys of LLaMA-Factory and of ms-swift become here."""

from typing import Any

from workflow_scripts.configuration.foreign.meanings import (
    OF_DPO,
    OF_TRANSFORMERS,
    NoCounterpart,
    NotNeeded,
    Ours,
    Rule,
    Trainer,
    every_projection,
    flag,
    losses,
    modules,
    needless,
    none,
    same,
    share,
    side,
    unless,
    whole,
)

_TEMPLATE = "the checkpoint's own chat template is used"
_ATTENTION = "the engine chooses its attention"
_REFERENCE = "the reference is the SFT model"
_CUT = "nothing is cut: a longer row is refused by validation"


def _four_bits(value: Any) -> Ours:
    if not value:
        raise NotNeeded("it was not used")
    if int(value) != 4:
        raise NoCounterpart("4 bits alone are known")
    return {"{stage}.lora.quantize": "4bit"}


def _method(value: Any) -> Ours:
    if value not in ("lora", "full"):
        raise NoCounterpart("methods are lora and full")
    return {"{stage}.method": value}


def _added_loss(value: Any) -> Ours:
    """The weight of the SFT loss on the chosen answer beside that of DPO."""
    if not value:
        raise NotNeeded("it was not used")
    return {"dpo.loss.sft": value}


def _initial(value: Any) -> Ours:
    if str(value).lower() == "true":
        raise NotNeeded("it is the default")
    return {"{stage}.lora.peft.init_lora_weights": value}


def _loss_scale(value: Any) -> Ours:
    if value in (None, "default"):
        raise NotNeeded("every answer of a dialogue is trained on")
    raise NoCounterpart(
        "sft.loss_weights weighs thought and answer; every answer of a dialogue is trained on"
    )


_SHARED: dict[str, Rule] = {
    **OF_TRANSFORMERS,
    **OF_DPO,
    "lora_rank": same("{stage}.lora.rank"),
    "lora_alpha": same("{stage}.lora.alpha"),
    "lora_dropout": same("{stage}.lora.dropout"),
    "use_rslora": flag("{stage}.lora.peft.use_rslora"),
    "use_dora": flag("{stage}.lora.peft.use_dora"),
    "ref_model": none(_REFERENCE),
    "template": needless(_TEMPLATE),
    "streaming": none("records are read as they are trained on; nothing needs streaming"),
    "max_samples": none("limit takes so many rows of each split, for a try alone"),
    "trust_remote_code": needless("no code of a repository is run"),
    "use_galore": none("the optimisers are those of transformers (trainer: {optim: …})"),
}
_LLAMA_FACTORY: dict[str, Rule] = {
    **_SHARED,
    "finetuning_type": _method,
    "lora_target": every_projection,
    "additional_target": modules,
    "pissa_init": none("it changes the base, which DPO's reference and a merged model would lack"),
    "loraplus_lr_ratio": none("one rate for both matrices of an adapter"),
    "cutoff_len": same("data.max_tokens"),
    "image_max_pixels": side,
    "image_min_pixels": needless("small images are enlarged by the processor's own rule"),
    "video_max_pixels": needless("there are no videos"),
    "video_min_pixels": needless("there are no videos"),
    "video_fps": needless("there are no videos"),
    "video_maxlen": needless("there are no videos"),
    "freeze_language_model": none("the text layers are trained"),
    "val_size": share,
    "eval_dataset": none(
        "a set's own split validation is used: put the rows beside the others with `split: validation`"
    ),
    "eval_strategy": needless("{stage}.validation_steps says whether and how often"),
    "early_stopping_steps": same("{stage}.patience"),
    "quantization_bit": _four_bits,
    "quantization_method": needless("it is bitsandbytes"),
    "quantization_type": needless("it is nf4"),
    "double_quantization": needless("it is on"),
    "enable_liger_kernel": same("{stage}.liger"),
    "disable_gradient_checkpointing": unless("{stage}.gradient_checkpointing"),
    "flash_attn": needless(_ATTENTION),
    "use_unsloth": none("it replaces the forward that the engine shares"),
    "neat_packing": needless("batches are trees of shared prefixes"),
    "train_on_prompt": none("answers alone are trained on"),
    "mask_history": none("every answer of a dialogue is trained on"),
    "preprocessing_num_workers": same("data.threads"),
    "preprocessing_batch_size": needless("it is set"),
    "overwrite_cache": needless("what is kept is known by what it depends on"),
    "tokenized_path": needless("tokenising takes seconds"),
    "plot_loss": needless("the report and the trackers draw the curve"),
    "cache_dir": needless("HF_HOME moves the hub's cache"),
    "use_fast_tokenizer": needless("it is fast"),
    "pref_beta": same("dpo.beta"),
    "pref_loss": losses,
    "pref_ftx": _added_loss,
    "dpo_label_smoothing": same("dpo.trainer.label_smoothing"),
    "ref_model_adapters": none(_REFERENCE),
    "include_num_input_tokens_seen": needless("the summary before a training states its tokens"),
    "compute_accuracy": needless("accuracies are of generated answers"),
}
_SWIFT: dict[str, Rule] = {
    **_SHARED,
    "tuner_type": _method,
    "train_type": _method,
    "tuner_backend": needless("it is peft"),
    "target_modules": every_projection,
    "target_regex": none("every projection of the text layers has an adapter"),
    "modules_to_save": modules,
    "init_weights": _initial,
    "lora_bias": same("{stage}.lora.peft.bias"),
    "lorap_lr_ratio": none("one rate for both matrices of an adapter"),
    "max_length": same("data.max_tokens"),
    "truncation_strategy": needless(_CUT),
    "max_pixels": side,
    "freeze_llm": none("the text layers are trained"),
    "vit_lr": same("{stage}.vision_learning_rate"),
    "aligner_lr": same("{stage}.merger_learning_rate"),
    "vit_gradient_checkpointing": needless("what memory does not hold is computed again"),
    "split_dataset_ratio": share,
    "val_dataset": none(
        "a set's own split validation is used: put the rows beside the others with `split: validation`"
    ),
    "eval_strategy": needless("{stage}.validation_steps says whether and how often"),
    "quant_bits": _four_bits,
    "quant_method": needless("it is bitsandbytes"),
    "use_liger_kernel": same("{stage}.liger"),
    "attn_impl": needless(_ATTENTION),
    "padding_free": needless("batches are trees of shared prefixes"),
    "lazy_tokenize": needless("images are opened as batches are made"),
    "loss_scale": _loss_scale,
    "add_non_thinking_prefix": needless("a run is of one mode, thinking or base"),
    "enable_thinking": needless("a run is of one mode, thinking or base"),
    "system": none("put it into the rows' own `system`, which goes before the first question"),
    "dataset_num_proc": same("data.threads"),
    "load_from_cache_file": needless("what is kept is known by what it depends on"),
    "dataset_shuffle": needless("batches are planned from the seed"),
    "columns": none("datasets.{name}.columns names them, ours first: {question: query}"),
    "model_author": needless("it is of self-cognition data"),
    "model_name": needless("it is of self-cognition data"),
    "use_hf": needless("models come from the hub or HF_ENDPOINT"),
    "check_model": needless("every file is compared with its digest"),
    "add_version": needless("results/ has a place for everything"),
    "sequence_parallel_size": none("strategies are ddp, zero1 to zero3, zero3_offload and fsdp"),
    "beta": same("dpo.beta"),
    "loss_type": losses,
    "rpo_alpha": _added_loss,
    "ref_adapters": none(_REFERENCE),
    "max_new_tokens": needless("evaluation.max_new_tokens is of this project's evaluation"),
    "eval_limit": needless("{stage}.validation_rows and evaluation are this project's"),
}

for _rules in (_LLAMA_FACTORY, _SWIFT):
    _rules["eval_steps"] = whole("{stage}.validation_steps")

# Keys of which several together mean one thing here.
_TOGETHER = {"per_device_train_batch_size", "gradient_accumulation_steps", "dataset", "model_revision"}
LLAMA_FACTORY = Trainer(
    "LLaMA-Factory",
    frozenset({"model_name_or_path", "finetuning_type", "cutoff_len", "stage"}),
    _LLAMA_FACTORY,
    # Where the file says nothing; lora_alpha is twice the rank.
    {
        "learning_rate": 5e-5, "num_train_epochs": 3.0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
        "lora_rank": 8, "lora_dropout": 0.0, "warmup_ratio": 0.0, "lr_scheduler_type": "linear", "image_max_pixels": 768 * 768,
    },
    frozenset(
        {*_TOGETHER, "model_name_or_path", "adapter_name_or_path", "stage", "dataset_dir", "media_dir", "mix_strategy",
         "interleave_probs", "freeze_vision_tower", "freeze_multi_modal_projector"}
    ),
)  # fmt: skip
MS_SWIFT = Trainer(
    "ms-swift",
    frozenset({"model", "tuner_type", "train_type", "rlhf_type"}),
    _SWIFT,
    # gradient_accumulation_steps: as many as make 16 rows a step.
    {
        "num_train_epochs": 3.0, "per_device_train_batch_size": 1, "lora_rank": 8, "lora_alpha": 32, "lora_dropout": 0.05,
        "warmup_ratio": 0.0, "weight_decay": 0.1, "adam_beta2": 0.95,
    },
    frozenset({*_TOGETHER, "model", "adapters", "rlhf_type", "interleave_prob", "freeze_vit", "freeze_aligner"}),
)  # fmt: skip
TRAINERS = (LLAMA_FACTORY, MS_SWIFT)
