"""How several processes share a training: what each strategy tells DeepSpeed, FSDP and the trainer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SHARDS_WEIGHTS = {"zero3", "zero3_offload", "fsdp"}


def arguments(strategy: str) -> dict:
    """The entries of TrainingArguments for `strategy`.

    They must exist before the model is loaded: under ZeRO-3 transformers then loads each process's part alone.
    """
    if strategy == "fsdp":
        return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    if strategy.startswith("zero"):
        return {"deepspeed": deepspeed_config(strategy)}
    # A batch without images runs the vision tower all the same, where that trains.
    return {"ddp_find_unused_parameters": False}


def deepspeed_config(strategy: str) -> dict:
    """DeepSpeed's configuration for zero1, zero2, zero3 or zero3_offload; "auto" is filled in by transformers."""
    name, _, offload = strategy.partition("_")
    zero: dict = {"stage": int(name.removeprefix("zero")), "overlap_comm": True, "contiguous_gradients": True}
    if name == "zero3":
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload:
        zero |= {f"offload_{part}": {"device": "cpu", "pin_memory": True} for part in ("param", "optimizer")}
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        # The trainer's own AdamW, which needs no compiler on the machine, unlike DeepSpeed's for the CPU.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }


@contextmanager
def whole(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """`module` with all of its parameters on `device`, for the time of the block; all processes enter together."""
    if is_partitioned(module):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            yield
    else:
        before = next(module.parameters()).device
        module.to(device)
        yield
        module.to(before)


def is_partitioned(module: torch.nn.Module) -> bool:
    """Whether ZeRO-3 holds a part of the parameters only."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())
