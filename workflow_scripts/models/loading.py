"""Loading models: one way for real checkpoints, stand-ins, full fine-tunings and adapters."""

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, Glm4vModel, Glm4vMoeModel
from transformers.utils import logging as transformers_logging

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils.quantization_config import QuantizationConfigMixin

    Model = PreTrainedModel | PeftModel  # a whole model, or an adapter upon one

logger = logging.getLogger(__name__)

if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()

# Above this, training or generating on a CPU is a mistake rather than a wish.
LARGEST_CPU_MODEL = 1_000_000_000

LOCAL_BASE = "base_model.json"  # beside an adapter: the folder of its base on this machine


def is_adapter(path: Path) -> bool:
    """Whether the folder holds an adapter, which needs a base model, rather than a whole model."""
    return (Path(path) / "adapter_config.json").is_file()


def model_type(path: Path) -> str:
    """The architecture of the model at `path`, or of the base below an adapter: glm4v, glm4v_moe."""
    name: str = files.read_json(base_of(path) / "config.json")["model_type"]
    return name


def base_of(path: Path) -> Path:
    """The folder of the whole model below an adapter, or `path` itself."""
    if not is_adapter(path):
        return Path(path)
    local = Path(path) / LOCAL_BASE
    if local.is_file():
        base = Path(files.read_json(local)["path"])
    else:
        base = Path(files.read_json(Path(path) / "adapter_config.json")["base_model_name_or_path"])
    if not base.is_dir():
        raise UserError(f"{path}: its base model {base} is not there; run from the folder it was trained in")
    return base


def name_base(path: Path, base: Path) -> None:
    """Let the adapter at `path` name its `base`, a folder of this machine, as others can find it.

    `adapter_config.json` gets the hub id and the commit from the base's manifest.json; without such an origin it
    keeps the folder. The folder is kept in `base_model.json` beside it, where `base_of` looks first.
    """
    config = files.read_json(path / "adapter_config.json") | {"base_model_name_or_path": str(base)}
    manifest = base / "manifest.json"
    origin = files.read_json(manifest)["origin"] if manifest.is_file() else {}
    if "repository" in origin:
        config |= {"base_model_name_or_path": origin["repository"], "revision": origin["commit"]}
    files.write_json(path / "adapter_config.json", config)
    files.write_json(path / LOCAL_BASE, {"path": str(base)})


def device_and_dtype(gpus: int, precision: str = "auto") -> tuple[torch.device, torch.dtype]:
    """bf16 on a GPU and fp32 on a CPU, unless `precision` says otherwise."""
    on_gpu = gpus > 0 and torch.cuda.is_available()
    dtype = {
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "auto": torch.bfloat16 if on_gpu else torch.float32,
    }
    return torch.device("cuda" if on_gpu else "cpu"), dtype[precision]


def model(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    trainable: bool = False,
    device_map: str | None = None,
    quantization: "QuantizationConfigMixin | None" = None,
    placed: bool = True,
) -> "Model":
    """The model at `path`, in evaluation mode; an adapter comes on top of its base, `trainable` if asked.

    It is moved to `device` unless `device_map` places it, or whoever calls will (`placed` is False). `quantization`
    is transformers' configuration of the base's weights, which are then put on this process's GPU.
    """
    base = base_of(path)
    _refuse_slow(base, device)
    try:
        loaded: Model = AutoModelForImageTextToText.from_pretrained(
            base, dtype=dtype, device_map=device_map, quantization_config=quantization
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{base}: cannot be loaded as a model ({' '.join(str(error).split())[:200]})"
        ) from error
    if is_adapter(path):
        loaded = PeftModel.from_pretrained(loaded, path, is_trainable=trainable)
        # peft looks there when it saves: it must not ask the hub.
        loaded.active_peft_config.base_model_name_or_path = str(base)
    if placed and not device_map and not quantization:
        _move(loaded, device)
    loaded.eval()
    return loaded


def _move(model: torch.nn.Module, device: torch.device) -> None:
    """As a Module: transformers annotates its own `to` wrongly."""
    model.to(device)


def merged(path: Path, dtype: torch.dtype, device: torch.device, placed: bool = True) -> "Model":
    """The model at `path` as one whole: an adapter is merged into its base."""
    loaded = model(path, dtype, device, placed=placed)
    if isinstance(loaded, PeftModel):
        whole: Model = loaded.merge_and_unload()
        return whole
    return loaded


def backbone(model: torch.nn.Module) -> Glm4vModel | Glm4vMoeModel:
    """The model without its head, below any adapter."""
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found: Glm4vModel | Glm4vMoeModel = whole.model
    return found


def use_tree_attention(model: "Model", device: torch.device) -> bool:
    """On a GPU, let the text layers attend by flex attention, which skips blocks that no token sees.

    Returns whether they do: then all trees of a batch should stand in one sequence.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        # Glm4v's text layers take any attention function, but transformers 5.23 declares it for Glm4vMoe alone.
        text: Any = backbone(model).language_model
        text._supports_flex_attn = True
        model.set_attn_implementation({"text_config": "flex_attention"})
    return on_gpu


def fingerprint(path: Path) -> str:
    """What identifies the model at `path`: the manifest of a download, the metrics of a training, else its files."""
    for name in ("manifest.json", "metrics.json"):
        if (Path(path) / name).is_file():
            stated: str = files.read_json(Path(path) / name)["fingerprint"]
            return stated
    weights = sorted(Path(path).glob("*.safetensors"))
    if not weights:
        raise UserError(f"{path}: no model here; download or train it first")
    return files.fingerprint([files.sha256(file) for file in weights])


def free_memory() -> None:
    """Give back what a model that nobody holds any more has taken, on a GPU too."""
    gc.collect()
    torch.cuda.empty_cache()


def _refuse_slow(base: Path, device: torch.device) -> None:
    size = sum(file.stat().st_size for file in base.glob("*.safetensors")) // 2
    if device.type == "cpu" and size > LARGEST_CPU_MODEL:
        raise UserError(
            f"{base}: a model of {size / 1e9:.0f} billion parameters needs a GPU and none is visible; "
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or take the stand-in (models.….embedded: true)"
        )
