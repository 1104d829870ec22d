"""How several processes share a training: what DeepSpeed, FSDP and the trainer are told of each strategy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import enable_fsdp_ram_efficient_loading
from torch.distributed import broadcast, is_initialized
from torch.distributed.fsdp import FSDPModule
from transformers.distributed.utils import is_local_dist_rank_0
from transformers.integrations.fsdp import is_fsdp_enabled

from workflow_scripts.training.division import STRATEGIES, Strategy
from workflow_scripts.training.engine.sharding import divided_by_zero3


def arguments(name: str) -> dict[str, Any]:
    """The entries of TrainingArguments for the strategy `name`.

    They must exist before the model is loaded: under ZeRO-3 transformers then loads each process's part alone, under
    FSDP the whole in one process.
    """
    strategy = STRATEGIES[name]
    if strategy.library == "fsdp":
        return {
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "state_dict_type": "FULL_STATE_DICT",
                "cpu_ram_efficient_loading": True,  # see `reads_weights`
            },
        }
    if strategy.library == "deepspeed":
        return {"deepspeed": deepspeed_config(strategy)}
    # A batch without images runs the vision tower all the same, where that trains.
    return {"ddp_find_unused_parameters": False}


def deepspeed_config(strategy: Strategy) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" is filled in by transformers. ZeRO's stage is how many kinds are divided."""
    zero: dict[str, Any] = {
        "stage": len(strategy.divides),
        "overlap_comm": True,
        "contiguous_gradients": True,
    }
    if strategy.is_zero3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if strategy.offloads:
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


def reads_weights(strategy: Strategy) -> bool:
    """Whether this process reads the weights: under FSDP the first one of a machine does.

    The others load to "meta" and have `room` for them, until the trainer divides those of the first.
    """
    if strategy.library != "fsdp" or not is_initialized():
        return True
    enable_fsdp_ram_efficient_loading()  # transformers then sets up what no checkpoint holds
    return is_local_dist_rank_0()


def room(module: torch.nn.Module) -> None:
    """Give what is on "meta" in `module` an address on the CPU, which takes no memory until it is written to.

    accelerate 1.15 tells the optimiser's parameters by their addresses: on "meta" all would be one.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.is_meta:
                empty = torch.empty_like(parameter, device="cpu")
                setattr(part, name, torch.nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(part, name, torch.empty_like(buffer, device="cpu"))


@contextmanager
def whole(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """`module` with all of its parameters on `device`, for the time of the block; all processes enter together."""
    if divided_by_zero3(module):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            yield
    else:
        before = next(module.parameters()).device
        fetch(module, device)
        yield
        module.to(before)


def fetch(module: torch.nn.Module, device: torch.device) -> None:
    """Put `module` on `device`; under FSDP with the weights of the first process, which has read them."""
    module.to(device)
    if is_fsdp_enabled():
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data, 0)


def gather_head(model: Any) -> None:
    """Gather the head's weights before each forward pass, where FSDP divides them.

    TRL 1.16 multiplies by them without calling the head, by `full_tensor()`, whose gradient is no sum over the
    processes: each would train its part of the head on its own rows alone.
    """

    def gather(module: Any, _: object) -> None:
        head = module.get_output_embeddings()
        if isinstance(head, FSDPModule):
            head.unshard()

    model.register_forward_pre_hook(gather)
