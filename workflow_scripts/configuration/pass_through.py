"""Keys of TRL's and peft's own configurations that are handed on as they are.

Left out is what a key of this project sets, what would send data away, and what the shared-prefix engine cannot be
exact with: other batches (packing, padding_free), noise a row (neftune_noise_alpha), a reference that moves
(sync_ref_model), another head (label_smoothing_factor).
"""

from typing import Literal

TrainerKey = Literal[
    "adam_beta1", "adam_beta2", "adam_epsilon", "average_tokens_across_devices", "ddp_backend", "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb", "eval_delay", "eval_on_start", "full_determinism", "lr_scheduler_kwargs", "lr_scheduler_type",
    "max_grad_norm", "optim", "optim_args", "optim_target_modules", "skip_memory_metrics", "tf32",
    "torch_empty_cache_steps",
]  # fmt: skip
DpoTrainerKey = Literal[
    TrainerKey, "disable_dropout", "discopop_tau", "f_alpha_divergence_coef", "f_divergence_type", "label_smoothing",
    "ld_alpha", "use_weighting",
]  # fmt: skip
PeftKey = Literal[
    "alpha_pattern", "bias", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_bias",
    "modules_to_save", "rank_pattern", "trainable_token_indices", "use_dora", "use_rslora",
]  # fmt: skip
