"""Loading models: one way for real checkpoints, stand-ins, full fine-tunings and adapters."""

import gc
import logging
import re
import sys
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, LoraConfig, PeftConfig, PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, Glm4vModel, Glm4vMoeModel
from transformers.utils import logging as transformers_logging

from workflow_scripts.base import files, scratch
from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.base.paths import MANIFEST, METRICS
from workflow_scripts.models import adapters, bases
from workflow_scripts.models.bases import ADAPTER_CONFIG, CONFIG
from workflow_scripts.models.catalogue import VERSIONS, Version

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils.quantization_config import QuantizationConfigMixin

    Model = PreTrainedModel | PeftModel  # a whole model, or an adapter upon one

logger = logging.getLogger(__name__)

if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()

# Above this, training or generating on a CPU is a mistake rather than a wish.
LARGEST_CPU_MODEL = 1_000_000_000

# What weights are called elsewhere, as pattern and today's name. Transformers has saved Glm4v by today's names since it
# knows it (4.53; its `_checkpoint_conversion_mapping` is empty or None), and so do LLaMA-Factory and ms-swift, which
# save through transformers and peft (tests/models/foreign/). Others are
# - `visual.`, `language_model.model.` and `language_model.lm_head.`: vLLM's (`hf_to_vllm_mapper` of its
#   Glm4vForConditionalGeneration), and for texts transformers' own of LLaVA before 4.52;
# - `visual.` and `language_model.`: Glm4vModel by itself, without a head (AutoModel), and adapters upon it;
# - `visual.` and `model.`: transformers 4's of Qwen2-VL, whose mapping is `^visual` and `^model(?!\.(…))`; adapters of a
#   text model by itself (Glm4ForCausalLM).
KNOWN_LAYOUTS = {
    r"^visual\.": "model.visual.",
    r"^(?:model|language_model(?:\.model)?)\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
    r"^language_model\.lm_head\.": "lm_head.",
}
NAMED = 3  # keys of each kind in an error
_BASE = "base_model_name_or_path"  # peft's key
# The files of a model that decide what it answers.
_DECIDES = re.compile(
    r"\.safetensors$|config\.json$|^(tokenizer|chat_template|vocab|merges|added_tokens|special_tokens)"
)
LOCAL_BASE = "base_model.json"  # beside an adapter: the folder of its base on this machine


def model_type(path: Path) -> str:
    """The architecture of the model at `path`, or of the base below an adapter: glm4v, glm4v_moe, glm46v."""
    name: str = files.read_value(base_of(path) / CONFIG, "model_type")
    return name


def base_of(path: Path) -> Path:
    """The folder of the whole model below an adapter, or `path` itself."""
    if not bases.is_adapter(path):
        return Path(path)
    local, named = _named_base(Path(path))
    if local.is_dir():
        return local
    if found := bases.of_repository(named):
        return found
    raise UserError(f"{path}: its base model {local} is not there; run from the folder it was trained in")


def _named_base(path: Path) -> tuple[Path, str]:
    """The folder of the base of the adapter at `path` on this machine, and what others know it by."""
    named = str(files.read_value(path / ADAPTER_CONFIG, _BASE))
    local = path / LOCAL_BASE
    return Path(files.read_value(local, "path") if local.is_file() else named), named


def check_version(path: Path, version: Version) -> None:
    """A UserError where the model at `path` is of another architecture than `version`."""
    found = model_type(path)
    if found not in (version.architecture, *version.also):
        fitting = [name for name, other in VERSIONS.items() if found in (other.architecture, *other.also)]
        advice = f"take --model_version {' or '.join(fitting)}, or" if fitting else "take"
        raise UserError(
            f"{path}: its model_type is {found}, and the version asked for is of {version.architecture}; "
            f"{advice} another model"
        )


def name_base(path: Path, base: Path) -> None:
    """Let the adapter at `path` name its `base`, a folder of this machine, as others can find it.

    `adapter_config.json` gets the hub id and the commit from the base's manifest.json; without such an origin it
    keeps the folder. The folder is kept in `base_model.json` beside it, where `base_of` looks first.
    """
    config = files.read_object(path / ADAPTER_CONFIG) | {_BASE: str(base)}
    manifest = base / MANIFEST
    origin = files.read_value(manifest, "origin") if manifest.is_file() else {}
    if "repository" in origin:
        config |= {_BASE: origin["repository"], "revision": origin["commit"]}
    files.write_json(path / ADAPTER_CONFIG, config)
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
    whole = _whole(base, dtype=dtype, device_map=device_map, quantization_config=quantization)
    loaded = adapted(whole, base, path, trainable) if bases.is_adapter(path) else whole
    if isinstance(loaded, PeftModel):
        # peft looks there when it saves: it must not ask the hub.
        loaded.active_peft_config.base_model_name_or_path = str(base)
    if placed and not device_map and not quantization:
        _move(loaded, device)
    loaded.eval()
    return loaded


def _whole(base: Path, **options: Any) -> "PreTrainedModel":
    """The whole model in the folder `base`, every weight of it from there."""
    load: Any = AutoModelForImageTextToText.from_pretrained  # annotated for one of the two things it returns
    try:
        loaded, info = load(
            scratch.near(base),
            key_mapping=KNOWN_LAYOUTS,
            ignore_mismatched_sizes=True,  # they are refused below, with the rest
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{base}: cannot be loaded as a model ({brief(error)})") from error
    _refuse_incomplete(
        base,
        [*info["missing_keys"], *(f"{name} (of another size)" for name, *_ in info["mismatched_keys"])],
        info["unexpected_keys"],
        "fetch it again, or save it again as a whole: with the vision tower, lm_head, and the config.json of its weights",
    )
    loaded.name_or_path = loaded.config._name_or_path = str(base)  # and not its copy
    loaded._weight_conversions = None  # it is saved in today's layout, whichever it came in
    whole: PreTrainedModel = loaded
    return whole


def adapted(model: "PreTrainedModel", base: Path, path: Path, trainable: bool = False) -> PeftModel:
    """`model`, which is the one in `base`, with the adapter in `path`, every weight of it from there.

    This is PeftModel.from_pretrained, which only warns of missing keys and says nothing of unexpected ones.
    """
    try:
        config = PeftConfig.from_pretrained(str(path))
        config.inference_mode = not trainable
        _rename(config)
        if isinstance(config, LoraConfig) and model.config.model_type == "glm4v_moe":
            linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
            targets = [name for name in linear if check_target_module_exists(config, name)]
            adapters.name_targets(config, targets, adapters.adapts_experts(path))
        if adapters.changes_base(begun := getattr(config, "init_lora_weights", None)):
            raise ValueError(
                f"init_lora_weights {begun} has changed the base; save it again by peft's save_pretrained with "
                "path_initial_model_for_weight_conversion"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other sizes: these are missing then
            wrapped: PeftModel = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)(
                model, config
            )
            found = wrapped.load_adapter(
                path,
                "default",
                is_trainable=trainable,
                key_mapping=KNOWN_LAYOUTS,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be loaded as an adapter of {base} ({brief(error)})") from error
    _refuse_incomplete(
        path,
        found.missing_keys,
        found.unexpected_keys,
        f"take the model it was trained on (it is loaded on {base}), or save it again by peft's save_pretrained",
    )
    return wrapped


def _rename(config: PeftConfig) -> None:
    """Let `config` name modules as they are called today."""
    for field in ("target_modules", "target_parameters"):
        if isinstance(names := getattr(config, field, None), list | set):
            setattr(config, field, type(names)(map(renamed, names)))
    for field in ("rank_pattern", "alpha_pattern"):  # what matches nothing there has the usual rank and scale
        if patterns := getattr(config, field, None):
            setattr(config, field, {renamed(pattern): value for pattern, value in patterns.items()})


def renamed(name: str) -> str:
    """What the weight `name` of any known layout is called today."""
    for pattern, today in KNOWN_LAYOUTS.items():
        name = re.sub(pattern, today, name)
    return name


def _refuse_incomplete(path: Path, missing: Iterable[str], unexpected: Iterable[str], advice: str) -> None:
    """A UserError where weights are missing in `path`, or are there that the model has no place for."""
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
    if any(kinds.values()):
        listed = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''})"
            for kind, keys in kinds.items()
            if keys
        )
        raise UserError(f"{path}: not all weights are what the model needs: {listed}; {advice}")


def _move(model: torch.nn.Module, device: torch.device) -> None:
    """As a Module: transformers annotates its own `to` wrongly."""
    model.to(device)


def merged(
    path: Path, dtype: torch.dtype, device: torch.device, device_map: str | None = None, placed: bool = True
) -> "Model":
    """The model at `path` as one whole: an adapter is merged into its base."""
    loaded = model(path, dtype, device, device_map=device_map, placed=placed)
    if isinstance(loaded, PeftModel):
        whole: Model = loaded.merge_and_unload()
        return whole
    return loaded


def with_head(model: torch.nn.Module) -> "PreTrainedModel":
    """The model itself, below any adapter."""
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found: PreTrainedModel = whole
    return found


def backbone(model: torch.nn.Module) -> Glm4vModel | Glm4vMoeModel:
    """The model without its head, below any adapter."""
    found: Glm4vModel | Glm4vMoeModel = with_head(model).model
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
    for name in (MANIFEST, METRICS):
        if (Path(path) / name).is_file():
            stated: str = files.read_value(Path(path) / name, "fingerprint")
            return stated
    weights = sorted(Path(path).glob("*.safetensors"))
    if not weights:
        raise UserError(f"{path}: no model here; download or train it first")
    return files.fingerprint([files.sha256(file) for file in weights])


def digest(path: Path) -> str:
    """What identifies the model at `path` by its content: weights, configuration, words, template; below an adapter its
    base too.

    Reads all weights, as loading does afterwards.
    """
    folders = dict.fromkeys([Path(path), base_of(path)])
    found = [file for folder in folders for file in sorted(folder.iterdir()) if _DECIDES.search(file.name)]
    with ThreadPoolExecutor() as pool:
        return files.fingerprint(
            list(zip([file.name for file in found], pool.map(_sha256, found), strict=True))
        )


def _sha256(file: Path) -> str:
    """Of a file that has not changed since it was read, without reading it again: styles are tried one after the other."""
    stat = file.stat()
    return _sha256_at(file, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256_at(file: Path, size: int, modified: int) -> str:
    return files.sha256(file)


def fits(path: Path, memory: int) -> bool:
    """Whether the model at `path` leaves a fifth of a GPU's `memory`, in bytes, for the answers."""
    folders = dict.fromkeys([Path(path), base_of(path)])
    weights = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    return weights < 0.8 * memory


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
