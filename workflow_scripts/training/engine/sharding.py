"""Which modules hold a part of their parameters only, as their tensors tell."""

import torch


def divided_by_zero3(module: torch.nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 holds a part of the parameters on each process."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())


def divided(module: torch.nn.Module) -> bool:
    """Whether ZeRO-3 or FSDP holds a part of the parameters on each process."""
    return divided_by_zero3(module) or any(
        hasattr(parameter, "device_mesh") for parameter in module.parameters()
    )
