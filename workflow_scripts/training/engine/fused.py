"""What a layer does beside its large matrix products, in fewer passes over memory.

At 4096 hidden units a pass over a layer's activations takes as long as a tenth of its matrix products.
"""

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear, silu
from transformers.models.glm4v.modeling_glm4v import Glm4vRMSNorm, Glm4vTextMLP


def fuse(model: torch.nn.Module) -> None:
    """Both below; for a GPU, where PyTorch compiles in seconds."""
    fuse_adapters(model)
    fuse_elementwise(model)


def unfuse(model: torch.nn.Module) -> None:
    """Undo both."""
    for module in model.modules():
        if getattr(vars(module).get("forward"), "__func__", None) in (_adapted, _norm, _mlp):
            del vars(module)["forward"]


def fuse_adapters(model: torch.nn.Module) -> None:
    """Let the LoRA layers of `model` add what an adapter says within a matrix product.

    peft writes it, scales it and adds it: six passes over a layer's output for two here, and as many less backward. For
    weights that lie whole in one place; what is not a plain LoRA layer stays as it is.
    """
    module: Any
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            vars(module)["forward"] = MethodType(_adapted, module)


def _adapted(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """peft's forward of `layer`, in autocast's type where it is on."""
    base, names = layer.base_layer, [name for name in layer.active_adapters if name in layer.lora_A]
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    plain = len(names) == 1 and not (layer.disable_adapters or layer.merged or args or kwargs)
    if not plain or names[0] in layer.lora_variant or layer.lora_B[names[0]].bias is not None:
        return type(layer).forward(layer, x, *args, **kwargs)
    name = names[0]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    if base.weight.dtype != dtype or (down.dtype != dtype and not autocast):
        return type(layer).forward(layer, x)
    x = x.to(dtype)
    dropped = layer.lora_dropout[name](x)
    return _AdaptedLinear.apply(
        x,
        None if dropped is x else dropped,
        base.weight,
        base.bias,
        down.to(dtype),
        up.to(dtype),
        layer.scaling[name],
    )


class _AdaptedLinear(torch.autograd.Function):
    """x W' + b + scaling (d A') B', with d = x where there is no dropout; all of one type.

    x, d [..., in], W [out, in], b [out] or None, A [rank, in], B [out, rank].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        low = linear(x if dropped is None else dropped, down)
        output = linear(x, weight, bias)
        output.view(-1, output.shape[-1]).addmm_(low.view(-1, low.shape[-1]), up.t(), alpha=scaling)
        ctx.save_for_backward(x, dropped, weight, down, up, low)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, dropped, weight, down, up, low = ctx.saved_tensors
        wants_x, wants_dropped, wants_weight, wants_bias, wants_down, wants_up, _ = ctx.needs_input_grad
        whole = gradient.reshape(-1, gradient.shape[-1])
        of_low = (whole @ up).mul_(ctx.scaling)
        entered = x if dropped is None else dropped
        of_x = of_dropped = None
        if wants_x:
            of_x = whole @ weight
            if dropped is None:
                of_x.addmm_(of_low, down)
            of_x = of_x.view(x.shape)
        if wants_dropped:
            of_dropped = (of_low @ down).view(x.shape)
        return (
            of_x,
            of_dropped,
            whole.t() @ x.reshape(-1, x.shape[-1]) if wants_weight else None,
            whole.sum(0) if wants_bias else None,
            of_low.t() @ entered.reshape(-1, x.shape[-1]) if wants_down else None,
            (whole.t() @ low.view(-1, low.shape[-1])).mul_(ctx.scaling) if wants_up else None,
            None,
        )


def fuse_elementwise(model: torch.nn.Module) -> None:
    """Compile the norms and the activations of the text layers of `model`, each to one kernel; for a GPU."""
    module: Any
    for name, module in model.named_modules():
        if "language_model" not in name:
            continue
        if isinstance(module, Glm4vRMSNorm):
            vars(module)["forward"] = MethodType(_norm, module)
        elif isinstance(module, Glm4vTextMLP) and module.config.hidden_act == "silu":
            vars(module)["forward"] = MethodType(_mlp, module)


def _norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return _compiled(_rms_norm)(hidden, norm.weight, norm.variance_epsilon)


def _mlp(mlp: Any, hidden: torch.Tensor) -> Any:
    return mlp.down_proj(_compiled(_swiglu)(mlp.gate_up_proj(hidden)))


@cache
def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Once it is called: PyTorch's compiler takes a second to import, also where nothing is fused."""
    return torch.compile(function, dynamic=True)


def _rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """As Glm4vRMSNorm: in fp32, rounded before it is weighted."""
    exact = hidden.float()
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * exact.to(hidden.dtype)


def _swiglu(gate_and_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_and_up.chunk(2, dim=-1)
    return up * silu(gate)
