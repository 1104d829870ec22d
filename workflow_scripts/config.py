"""The configuration: one pydantic model, whose defaults and descriptions write config.yaml and its schema.

`python -m workflow_scripts.config --write` writes both; `--check FILE …` prints every error of a configuration.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from workflow_scripts import credentials, files
from workflow_scripts.datasets.readers import tables
from workflow_scripts.errors import UserError
from workflow_scripts.files import read_yaml
from workflow_scripts.models.catalogue import MODES, VERSIONS
from workflow_scripts.paths import Layout

Language = Literal["en", "zh"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# What TRL's DPOTrainer takes, without exo_pair, which needs a label smoothing that is not configured here.
Loss = Literal[
    "sigmoid", "hinge", "ipo", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


def _distinct(names: list) -> list:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands more than once")
    return names


Name = TypeVar("Name")
Distinct = Annotated[list[Name], AfterValidator(_distinct)]


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else getattr(value, key, None)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Source(_Section):
    """Where a data set comes from: `embedded` phantoms, a local `path`, or the hub's `repository`, in this order."""

    reader: Literal["slake", "rad", "pathvqa", "custom"] = Field(
        description="the raw format; custom: your own .csv, .tsv, .parquet or .jsonl"
    )
    repository: str | None = Field(None, description="dataset id on the Hugging Face hub")
    revision: str | None = Field(None, description="commit of that repository")
    files: list[str] = Field([], description="what to fetch of it, as patterns; empty: everything")
    path: Path | None = Field(
        None, description="a local folder in the original layout, or a custom table, used instead of the hub"
    )
    images: Path | None = Field(None, description="custom: a folder of images that lies apart from the table")
    columns: dict[Literal[tables.FIELDS], str] = Field(
        {},
        description=f"custom: the column of a field that is called otherwise; fields are {', '.join(tables.FIELDS)}",
    )
    embedded: int | None = Field(None, ge=10, description="draw this many phantoms instead; no network")
    licence: str = Field("", description="recorded in the manifest")
    languages: list[Language] = Field([], description="keep these languages only; empty: all")


class Combination(_Section):
    """A set made of other sets."""

    members: Distinct[str] = Field(min_length=2, description="names of other data sets")
    weights: dict[str, Positive] = Field(
        {}, description="shares of the train rows by member, such as {slake: 1, rad: 2}; empty: as they come"
    )
    temperature: Positive | None = Field(
        None, description="shares by size ** (1 / temperature) instead: 1 as they come, large evens them out"
    )


Dataset = Annotated[
    Annotated[Source, Tag("source")] | Annotated[Combination, Tag("combination")],
    Discriminator(lambda value: "combination" if _get(value, "members") is not None else "source"),
]


class Checkpoint(_Section):
    """Where a model comes from: `embedded`, a local `path`, or the hub's `repository`, in this order."""

    repository: str | None = Field(None, description="model id on the Hugging Face hub")
    revision: str = Field("main", description="commit; a branch is resolved once, at download, and recorded")
    path: Path | None = Field(None, description="a local folder in the hub's layout, used instead of the hub")
    embedded: bool = Field(False, description="use the tiny stand-in of the same class instead")


class Data(_Section):
    """Conversion and validation."""

    thoughts: Literal["facts", "empty"] = Field(
        "facts",
        description="thinking mode, rows without a rationale: build it from the row's annotations, or none",
    )
    terminology: Literal["keep", "canonical"] = Field(
        "keep",
        description="answers as the set words them, or in canonical medical terms where all of one is known",
    )
    splits: Literal["official", "image_disjoint"] = Field(
        "official",
        description="image_disjoint: no image of any test set, in either language, in train or validation",
    )
    near_duplicates: Literal["report", "remove"] = Field(
        "report", description="images that look like a test image; remove: with splits: image_disjoint"
    )
    validation_share: Share = Field(
        0.1, description="images taken from train where a set has no validation split"
    )
    max_missing_images: Share = Field(
        0.05, description="share of rows whose image may be absent before it is an error"
    )
    max_image_side: Count = Field(
        768, description="pixels: images are scaled to at most the area of this square; 768 gives 729 tokens"
    )
    max_tokens: Count = Field(
        4096, description="longest dialogue in tokens; a longer one is refused by validation"
    )
    decode_images: bool = Field(
        True,
        description="validation decodes every image, which also finds near-duplicates; false: headers only",
    )


class Lora(_Section):
    """Low-rank adapters on every projection of the text layers."""

    rank: Count = 64
    alpha: Positive = 128
    dropout: Share = 0.05
    vision: bool = Field(False, description="adapt the vision tower too")
    quantize: Literal["4bit"] | None = Field(
        None,
        description="4bit: QLoRA, the frozen text layers of 4.1V in 4 bits; NVIDIA GPU, pip install bitsandbytes",
    )


def micro_batches(batch_size: int, micro_batch_size: int, processes: int) -> tuple[int, int]:
    """(rows per forward pass, passes per optimiser step) of each of `processes`.

    Raises ValueError where batch_size is not their product over all processes.
    """
    rows = min(micro_batch_size, max(1, batch_size // processes))
    passes = batch_size // (rows * processes)
    if passes * rows * processes != batch_size:
        raise ValueError(
            f"batch_size {batch_size} is not micro_batch_size {rows} x {processes} GPU(s) x a whole number"
        )
    return rows, passes


class Training(_Section):
    """What sft and dpo share."""

    method: Literal["lora", "full"] = Field("lora", description="lora or full")
    epochs: Positive = 3
    learning_rate: Positive = 1e-4
    merger_learning_rate: Positive | None = Field(
        None, description="of the merger between vision and text, where it trains; empty: learning_rate"
    )
    vision_learning_rate: Positive | None = Field(
        None, description="of the rest of the vision tower, where it trains; empty: learning_rate"
    )
    gpus: int = Field(1, ge=0, description="GPUs of one job, on each of its nodes; 0 trains on the CPU")
    nodes: Count = Field(1, description="machines of one job")
    batch_size: Count = Field(16, description="rows (dpo: pairs) per optimiser step, over all GPUs")
    micro_batch_size: Count = Field(
        16, description="rows (dpo: pairs) per forward pass on one GPU, at most; those of one image share it"
    )
    micro_batch_tokens: Count = Field(
        16384, description="unique tokens per forward pass on one GPU: each image once, each row's own"
    )
    oom_retries: Annotated[int, Field(ge=0)] = Field(
        0,
        description="out of GPU memory: start over with half the micro_batch_tokens, at most so many times",
    )
    rows_per_image: Count = Field(
        8, description="rows of one image in a forward pass, at most: fewer are slower, and more diverse"
    )
    vision_cache_gb: Annotated[float, Field(ge=0)] = Field(
        50,
        description="features of a frozen vision tower kept in results/features; 0 computes them each time",
    )
    warmup: Share = Field(0.05, description="share of the steps")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps")
    freeze_vision: bool = Field(True, description="full training: leave the whole vision tower as it is")
    lora: Lora = Lora()
    gradient_checkpointing: bool = Field(True, description="recompute activations: slower, far less memory")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on a GPU, fp32 on a CPU"
    )
    liger: bool = Field(
        False, description="Liger's kernels for norms and MLPs; NVIDIA GPU, pip install liger-kernel"
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp"] = Field(
        "ddp",
        description="how GPUs share the work; zero1 to zero3 and fsdp (DeepSpeed, PyTorch) divide the model's state",
    )
    save_steps: Count = Field(100, description="optimiser steps between checkpoints")
    validation_steps: Count | None = Field(
        None,
        description="optimiser steps between validations, which then take the place of save_steps; the model with the "
        "least validation loss is kept; empty: no validation, the last model is kept",
    )
    validation_rows: Count = Field(
        500, description="sft: validation rows; dpo: pairs set aside, at most a tenth of them"
    )
    patience: Count | None = Field(
        None, description="stop after this many validations without a lower loss; empty: train to the end"
    )
    log_steps: Count = Field(10, description="optimiser steps between points of the training curve")

    @field_validator("micro_batch_size")
    @classmethod
    def _fills_the_batch(cls, rows: int, info: ValidationInfo) -> int:
        if {"batch_size", "gpus", "nodes"} <= info.data.keys():
            micro_batches(info.data["batch_size"], rows, max(1, info.data["gpus"]) * info.data["nodes"])
        return rows


class Sft(Training):
    """Supervised fine-tuning."""


class Preferences(_Section):
    """Pairs for DPO, from train images that no test row uses."""

    own_answers: bool = Field(True, description="the SFT model's own wrong answers to train questions")
    samples: Count = Field(2, description="answers sampled per question")
    temperature: Positive = 1.0
    max_questions: Count = Field(2000, description="train questions that are sampled, spread over the images")
    rules: Distinct[Literal["polarity", "swap", "other_image"]] = Field(
        ["polarity", "swap", "other_image"],
        description="yes/no flipped; side, organ or modality swapped; the same question's answer on another image",
    )
    max_pairs: Count = Field(4000, description="pairs kept in all, own answers first")
    max_pairs_per_image: Count = 8
    files: dict[str, list[Path]] = Field({}, description="your own preference files (JSONL), by data set")


class Dpo(Training):
    """Direct preference optimisation of the SFT model, which is also the reference."""

    epochs: Positive = 1
    learning_rate: Positive = 1e-5
    beta: Positive = Field(0.1, description="strength of the pull towards the reference")
    loss: dict[Loss, Positive] = Field(
        {"sigmoid": 1.0}, min_length=1, description="TRL's loss types with their weights"
    )


class Evaluation(_Section):
    """Generation and scoring."""

    batch_size: Count = 16
    max_new_tokens: Count = Field(1024, description="answers cut off here are counted as truncated")
    max_validation_rows: Count = Field(
        500,
        description="validation rows that decide between the SFT and the DPO model, never seen in training",
    )
    blank_image: bool = Field(
        True, description="score the better of the SFT and the DPO model on blank images as well"
    )
    gpus: int = Field(1, ge=0, description="GPUs of one job; 0 runs on the CPU")


def _no_credentials(uri: str) -> str:
    if credentials.stands_in(uri):
        raise ValueError(
            "configurations are copied into results/ and MLflow; take user and password out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for a database, MLFLOW_TRACKING_URI)"
        )
    return uri


class Config(_Section):
    """Everything that a user sets."""

    seed: int = Field(42, ge=0, lt=2**32, description="of splits, sampling, initialisation and data order")
    datasets: dict[str, Dataset] = Field(
        {
            "slake": Source(
                reader="slake",
                repository="BoKelvin/SLAKE",
                revision="a9083ce6c34ac3ffb17671a605962924d8a8f9e9",
                licence="CC BY 4.0",
            ),
            "rad": Source(
                reader="rad",
                repository="flaviagiammarino/vqa-rad",
                revision="bcf91e7654fb9d51c8ab6a5b82cacf3fafd2fae9",
                licence="CC0 1.0",
            ),
            "pathvqa": Source(
                reader="pathvqa",
                repository="flaviagiammarino/path-vqa",
                revision="1685832883334b5bb5beaf4e4b333fdeecaa4ad9",
                licence="MIT declared; the images' copyright stays with the books' publishers and PEIR",
            ),
            "combined": Combination(members=["slake", "rad", "pathvqa"]),
        },
        min_length=1,
        description="data sets by the name that stands in results/eval/{dataset}_{model_version}_{mode}.json",
    )
    models: dict[str, dict[Literal[MODES], Checkpoint]] = Field(
        {
            name: {mode: Checkpoint(repository=id) for mode, id in version.repositories.items()}
            for name, version in VERSIONS.items()
        },
        min_length=1,
        description="checkpoints by model version and mode",
    )
    terms: list[Path] = Field(
        [],
        description="your own medical terms (YAML), beside those of workflow_scripts/datasets/terminology/",
    )
    data: Data = Data()
    sft: Sft = Sft()
    preferences: Preferences = Preferences()
    dpo: Dpo = Dpo()
    evaluation: Evaluation = Evaluation()
    tracking: Distinct[Literal["mlflow", "tensorboard", "wandb"]] = Field(
        ["mlflow"], description="mlflow, tensorboard, wandb"
    )
    tracking_uri: Annotated[str, AfterValidator(_no_credentials)] | None = Field(
        None, description="an MLflow server; empty: MLFLOW_TRACKING_URI, else results/mlflow.db"
    )

    def sources(self, dataset: str) -> dict[str, Source]:
        """The sources that `dataset` is made of, by name."""
        entry = self.dataset(dataset)
        names = entry.members if isinstance(entry, Combination) else [dataset]
        return {name: self.datasets[name] for name in names}

    def dataset(self, name: str) -> Source | Combination:
        """What `name` stands for; a UserError suggests the nearest where it is unknown."""
        if name not in self.datasets:
            raise UserError(f"--dataset: {unknown(name, self.datasets)}")
        return self.datasets[name]

    def checkpoint(self, version: str, mode: str) -> Checkpoint:
        """Where the model of (version, mode) comes from; a UserError suggests the nearest where it is unknown."""
        if version not in self.models:
            raise UserError(f"--model_version: {unknown(version, self.models)}")
        if mode not in self.models[version]:
            raise UserError(f"--mode: {unknown(mode, self.models[version])} for {version}")
        return self.models[version][mode]


# Loading


def merge(base: dict, update: dict) -> dict:
    """`base` with the keys of `update` laid over it, section by section, as Snakemake merges configurations."""
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def load(paths: list[Path]) -> Config:
    """Read configuration files, later over earlier ones, and validate the result."""
    raw: dict = {}
    for path in paths:
        raw = merge(raw, read_yaml(path))
    return validate(raw, where=", ".join(map(str, paths)))


def validate(raw: dict, where: str) -> Config:
    """Build the configuration from plain values; a UserError lists every problem at once."""
    problems = []
    config = None
    try:
        config = Config.model_validate(_numbers(raw))
    except ValidationError as error:
        problems += [credentials.without(_describe(item)) for item in error.errors()]
    problems += _cross_checks(raw)
    if config and config.terms:
        from workflow_scripts.datasets import terminology

        try:
            terminology.load(tuple(config.terms))
        except UserError as error:
            problems.append(f"terms: {error}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{where}: {len(problems)} error(s) in the configuration\n{lines}")
    return config


def _numbers(value: Any) -> Any:
    """Snakemake's own YAML reader gives 1e-5 as text; make it the number it means."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, str) and re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value


def _cross_checks(raw: dict) -> Iterator[str]:
    """What pydantic cannot see field by field: names that must fit together."""
    datasets = raw.get("datasets")
    for name, entry in datasets.items() if isinstance(datasets, dict) else ():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", str(name)):
            yield f"datasets.{name}: a name has letters, digits, '.' and '-' only, since '_' separates names in paths"
        if not isinstance(entry, dict):
            continue
        for key in ("images", "columns"):
            if entry.get(key) and entry.get("reader") != "custom":
                yield f"datasets.{name}.{key}: is for the reader custom only"
        if members := entry.get("members"):
            sources = [
                key for key, value in datasets.items() if isinstance(value, dict) and not value.get("members")
            ]
            for member in members if isinstance(members, list) else ():
                if member not in sources:
                    yield f"datasets.{name}.members: {unknown(member, sources)}"
            yield from _mixture_checks(f"datasets.{name}", entry)
        elif not any(entry.get(key) for key in ("repository", "path", "embedded")):
            yield f"datasets.{name}: needs one of repository, path or embedded"
        elif entry.get("reader") == "custom" and not (entry.get("repository") or entry.get("path")):
            yield f"datasets.{name}: a custom set has no phantoms; give its path or repository"
        elif entry.get("repository") and not entry.get("revision"):
            yield f"datasets.{name}.revision: missing; give the commit of {entry['repository']} to be read"
    data = raw.get("data")
    if isinstance(data, dict):
        removing = data.get("near_duplicates") == "remove"
        if removing and data.get("splits") != "image_disjoint":
            yield "data.near_duplicates: remove needs data.splits: image_disjoint; official splits stay as they are"
    models = raw.get("models")
    for version, modes in models.items() if isinstance(models, dict) else ():
        if version not in VERSIONS:
            yield f"models.{version}: {unknown(version, VERSIONS)}"
        for mode, entry in modes.items() if isinstance(modes, dict) else ():
            if isinstance(entry, dict) and not any(
                entry.get(key) for key in ("repository", "path", "embedded")
            ):
                yield f"models.{version}.{mode}: needs one of repository, path or embedded"
    known = datasets if isinstance(datasets, dict) else Config.model_fields["datasets"].default
    preferences = raw.get("preferences")
    own_files = preferences.get("files") if isinstance(preferences, dict) else None
    for name in own_files if isinstance(own_files, dict) else ():
        if name not in known:
            yield f"preferences.files.{name}: {unknown(name, known)}"


def _mixture_checks(where: str, entry: dict) -> Iterator[str]:
    weights, members = entry.get("weights"), entry["members"]
    if not weights or not isinstance(weights, dict) or not isinstance(members, list):
        return
    if entry.get("temperature") is not None:
        yield f"{where}: has both weights and temperature; keep one"
    for name in weights:
        if name not in members:
            yield f"{where}.weights: {unknown(name, members)}"
    for member in members:
        if member not in weights:
            yield f"{where}.weights.{member}: missing; give each member a weight"


def unknown(name: object, known) -> str:
    """Say that `name` is not among `known`, list these, and suggest the nearest."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name!r} is unknown (known: {', '.join(map(str, known))}){hint}"


def _describe(error: dict) -> str:
    location = [part for part in error["loc"] if part not in ("source", "combination", "[key]")]
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        dataset = Combination if "combination" in error["loc"] else Source
        return f"{path}: {unknown(location[-1], _fields(location[:-1], dataset))}"
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{path}: {unknown(error['input'], allowed)}"
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "value_error":
        return f"{path}: {error['input']!r}: {error['ctx']['error']}"
    return f"{path}: {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _fields(location: list, dataset: type[_Section]) -> list[str]:
    """The keys allowed in the section at `location`, where a data set is a `dataset`."""
    section: Any = Config
    for key in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[key].annotation
        else:
            section = get_args(section)[1]
        if section == Dataset:
            section = dataset
    return list(section.model_fields)


# Writing config.yaml and its schema


def to_yaml(config: Config) -> str:
    """`config` as YAML, each key under the comment that explains it."""
    lines = [
        "# The configuration of the workflow. Written by `python -m workflow_scripts.config --write` from the",
        "# defaults in workflow_scripts/config.py; edit freely. A key left out has the value shown here.",
        "# yaml-language-server: $schema=config.schema.json",
    ]
    return "\n".join(lines + list(_section_lines(config, ""))) + "\n"


def _section_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        top = not indent
        if top:
            yield ""
        note = field.description or (type(value).__doc__ if isinstance(value, BaseModel) else "")
        if isinstance(value, BaseModel):
            yield f"{indent}# {note}"
            yield f"{indent}{name}:"
            yield from _section_lines(value, indent + "  ")
        elif name in ("datasets", "models"):
            yield f"{indent}# {note}"
            for entry in (Source, Combination) if name == "datasets" else (Checkpoint,):
                yield f"{indent}# {entry.__doc__.splitlines()[0]}"
                for key, inner in entry.model_fields.items():
                    yield f"{indent}#   {key}: {inner.description}"
            plain = section.model_dump(mode="json", include={name}, exclude_defaults=False)[name]
            yield from yaml.safe_dump({name: _without_empty(plain)}, sort_keys=False, width=110).splitlines()
        else:
            plain = section.model_dump(mode="json", include={name})[name]
            text = (
                yaml.safe_dump(plain, default_flow_style=True, width=1000)
                .removesuffix("\n")
                .removesuffix("\n...")
            )
            yield f"{indent}{name}: {text}" + (f"  # {note}" if note else "")


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_empty(item)
            for key, item in value.items()
            if item not in (None, [], {}, "", False, "main")
        }
    return value


def to_schema() -> str:
    """The JSON schema of config.yaml, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_copy(settings: Config, layout: Layout) -> Path:
    """Keep `settings` under results/config/, in a file named by its content; returns the path."""
    text = to_yaml(settings)
    path = layout.root / "config" / f"{files.fingerprint(text)}.yaml"
    if not path.is_file():
        files.write_text(path, text)
    return path


# What each stage depends on


_WITHOUT_EFFECT = {
    "gpus", "nodes", "oom_retries", "save_steps", "log_steps", "strategy", "vision_cache_gb"
}  # fmt: skip
STAGE_SECTIONS = {
    "convert": ("data",),
    "validate": ("data",),
    "sft": ("data", "sft"),
    "preferences": ("data", "preferences", "evaluation"),
    "dpo": ("data", "dpo"),
    "evaluate": ("data", "evaluation"),
}


def stage_settings(settings: Config, stage: str) -> dict:
    """The plain values that the result of a stage depends on.

    Snakemake reruns a stage when they change, checkpoints of other values are not resumed, and MLflow shows them.
    What changes how a stage runs but not what comes out is left out.
    """
    values: dict[str, Any] = {"seed": settings.seed}
    for name in STAGE_SECTIONS[stage]:
        values[name] = getattr(settings, name).model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return values


_FETCHED = {"reader", "repository", "revision", "files", "path", "embedded", "licence"}


def source_settings(settings: Config, name: str) -> dict:
    """The plain values that the raw files of a source and their manifest depend on."""
    source = settings.dataset(name)
    values = source.model_dump(mode="json", include=_FETCHED)
    return values | {"seed": settings.seed} if source.embedded else values


def convert_settings(settings: Config, dataset: str) -> dict:
    """The plain values that the conversion of a data set depends on, besides its raw files."""
    made_of = {dataset, *settings.sources(dataset)}
    chosen = {
        name: settings.datasets[name].model_dump(mode="json", exclude=_FETCHED) for name in sorted(made_of)
    }
    return {**stage_settings(settings, "convert"), "datasets": chosen}


def mixture_settings(settings: Config, dataset: str) -> dict:
    """The plain values by which the train rows of a combination are mixed; {} for a single set."""
    entry = settings.dataset(dataset)
    included = {"weights", "temperature"}
    return entry.model_dump(mode="json", include=included) if isinstance(entry, Combination) else {}


def main(arguments: list[str] | None = None) -> int:
    from workflow_scripts import cli

    parser = cli.parser("Write config.yaml and config.schema.json, or check a configuration.")
    parser.add_argument("--write", action="store_true", help="write config.yaml and config.schema.json here")
    parser.add_argument(
        "--check", nargs="+", type=Path, metavar="FILE", help="print every error of these files, merged"
    )
    options = parser.parse_args(arguments)
    if options.write:
        files.write_text(Path("config.yaml"), to_yaml(Config()))
        files.write_text(Path("config.schema.json"), to_schema())
    if options.check:
        load(options.check)
        print(f"{', '.join(map(str, options.check))}: good")
    return 0


if __name__ == "__main__":
    from workflow_scripts import cli

    sys.exit(cli.run(main))
