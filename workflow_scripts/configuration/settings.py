"""The settings that a user makes: one pydantic model, whose defaults and descriptions write config.yaml."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workflow_scripts.base import credentials
from workflow_scripts.base.errors import UserError, unknown
from workflow_scripts.base.locks import InUse
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.pass_through import DpoTrainerKey, PeftKey, TrainerKey
from workflow_scripts.datasets import readers
from workflow_scripts.datasets.pairs.rules import RULES, RuleName
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.readers import tables
from workflow_scripts.models.adapters import changes_base
from workflow_scripts.models.catalogue import VERSIONS, Mode

Language = Literal["en", "zh"]


def _no_truth(value: object) -> object:
    """Python counts True as 1, but nobody who writes `epochs: yes` means that."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not yes or no")
    return value


# Behind the limits of a number, which the schema would not know otherwise.
NO_TRUTH = BeforeValidator(_no_truth)
Share = Annotated[float, Field(ge=0, le=1), NO_TRUTH]
Positive = Annotated[float, Field(gt=0), NO_TRUTH]
NotNegative = Annotated[float, Field(ge=0), NO_TRUTH]
Natural = Annotated[int, Field(ge=0), NO_TRUTH]
Count = Annotated[int, Field(ge=1), NO_TRUTH]
FEWEST_ROWS = 4  # closed and open ones in two languages
# What TRL's DPOTrainer takes.
Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
# Without label smoothing the first is the sigmoid loss, and the second is refused by TRL.
SMOOTHED: tuple[Loss, ...] = ("robust", "exo_pair")

Name = TypeVar("Name")


def _distinct(names: list[Name]) -> list[Name]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands more than once")
    return names


Distinct = Annotated[list[Name], AfterValidator(_distinct)]


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else getattr(value, key, None)


class UndeclaredKey(LookupError):
    """A stage has read a key of which configuration/dependencies.py does not know that it does."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
    _shown_to: tuple[str, str] = ("", "")  # the stage, and the section's path

    def shown_to(self, stage: str, keys: Collection[str], path: str = "") -> Self:
        """A copy with `keys` alone; to read another is an UndeclaredKey that names `stage` and, after `path`, the key."""
        shown = self.model_copy()
        shown._shown_to = stage, path
        for key in type(self).model_fields.keys() - set(keys):
            shown.__dict__.pop(key, None)
        return shown

    if not TYPE_CHECKING:  # else no misspelt key would be noticed

        def __getattr__(self, name: str) -> Any:
            if name not in type(self).model_fields:
                return super().__getattr__(name)
            stage, path = self._shown_to
            raise UndeclaredKey(
                f"{stage} reads {path}{name}, which is not declared for it in configuration/dependencies.py"
            )


class Source(Section):
    """Where a data set comes from: `embedded` phantoms, a local `path`, or the hub's `repository`, in this order."""

    reader: readers.Name = Field(
        description="the raw format; custom: your own .csv, .tsv, .parquet, .jsonl or .json"
    )
    repository: str | None = Field(default=None, description="dataset id on the Hugging Face hub")
    revision: str | None = Field(default=None, description="commit of that repository")
    files: list[str] = Field(default=[], description="what to fetch of it, as patterns; empty: everything")
    path: Path | None = Field(
        default=None,
        description="a local folder in the original layout, or a custom table, used instead of the hub",
    )
    images: Path | None = Field(
        default=None, description="custom: a folder of images that lies apart from the table"
    )
    columns: dict[tables.FieldName, str] = Field(
        default={},
        description=f"custom: the column of a field that is called otherwise; fields are {', '.join(tables.FIELDS)}",
    )
    embedded: Annotated[int, Field(ge=10), NO_TRUTH] | None = Field(
        default=None, description="draw this many phantoms instead; no network"
    )
    licence: str = Field(default="", description="recorded in the manifest")
    languages: list[Language] = Field(default=[], description="keep these languages only; empty: all")


class Combination(Section):
    """A set made of other sets."""

    members: Distinct[str] = Field(min_length=2, description="names of other data sets")
    weights: dict[str, Positive] = Field(
        default={},
        description="shares of the train rows by member, such as {slake: 1, rad: 2}; empty: as they come",
    )
    temperature: Positive | None = Field(
        default=None,
        description="shares by size ** (1 / temperature) instead: 1 as they come, large evens them out",
    )


Dataset = Annotated[
    Annotated[Source, Tag("source")] | Annotated[Combination, Tag("combination")],
    Discriminator(lambda value: "combination" if _get(value, "members") is not None else "source"),
]


class Checkpoint(Section):
    """Where a model comes from: `embedded`, a local `path`, or the hub's `repository`, in this order."""

    repository: str | None = Field(default=None, description="model id on the Hugging Face hub")
    revision: str = Field(
        default="main", description="commit; a branch is resolved once, at download, and recorded"
    )
    path: Path | None = Field(
        default=None, description="a local folder in the hub's layout, used instead of the hub"
    )
    embedded: bool = Field(default=False, description="use the tiny stand-in of the same class instead")


class Data(Section):
    """Conversion and validation."""

    thoughts: Literal["facts", "empty"] = Field(
        default="empty",
        description="thinking mode, rows without a rationale: build it from the row's annotations (facts), or none; "
        "by benchmarks/thoughts.md, empty does not lose to base mode",
    )
    terminology: Literal["keep", "canonical"] = Field(
        default="keep",
        description="answers as the set words them, or in canonical medical terms where all of one is known",
    )
    splits: Literal["official", "image_disjoint"] = Field(
        default="official",
        description="image_disjoint: no image or patient of a test set, in either language, in train or validation, and "
        "none of validation in train",
    )
    near_duplicates: Literal["report", "remove"] = Field(
        default="report",
        description="images in train or validation that look like a test image; remove, with splits: image_disjoint: "
        "these, and images in train that look like a validation image",
    )
    validation_share: Share = Field(
        default=0.1, description="images taken from train where a set has no validation split"
    )
    max_missing_images: Share = Field(
        default=0.05, description="share of rows whose image may be absent before it is an error"
    )
    max_image_side: Count = Field(
        default=768,
        description="pixels: images are scaled to at most the area of this square; 768 gives 729 tokens",
    )
    frames: FrameRule = Field(
        default=FRAMES,
        description="which frame stands for an image file of several (GIF, APNG, TIFF, DICOM): middle, first or last",
    )
    max_tokens: Count = Field(
        default=4096, description="longest dialogue in tokens; a longer one is refused by validation"
    )
    decode_images: bool = Field(
        default=True,
        description="validation decodes every image, which also finds near-duplicates; false: headers only",
    )
    threads: Count = Field(default=4, description="CPU cores of one job, which decode images")


class Lora(Section):
    """Low-rank adapters on every projection of the text layers."""

    rank: Count = 64
    alpha: Positive = 128
    dropout: Share = 0.05
    vision: bool = Field(default=False, description="adapt the vision tower too")
    quantize: Literal["4bit"] | None = Field(
        default=None,
        description="4bit: QLoRA, the frozen text layers of 4.1V in 4 bits; NVIDIA GPU, pip install bitsandbytes",
    )
    peft: dict[PeftKey, Any] = Field(
        default={}, description="further keys of peft's LoraConfig, such as {use_rslora: true}"
    )

    @field_validator("peft")
    @classmethod
    def _leaves_the_base(cls, keys: dict[PeftKey, Any]) -> dict[PeftKey, Any]:
        if changes_base(begun := keys.get("init_lora_weights")):
            raise ValueError(
                f"init_lora_weights: {begun} changes the base's weights, which the reference of DPO and the merged model "
                "would then lack; leave it out, or take gaussian or orthogonal"
            )
        return keys


class Rate(NamedTuple):
    """A learning rate and why it is the default."""

    value: float
    source: str


class Training(Section):
    """What sft and dpo share."""

    # Where learning_rate is empty. LoRA wants ten times the rate of full training (Schulman et al. 2025, "LoRA Without
    # Regret", thinkingmachines.ai/blog/lora).
    default_rates: ClassVar[dict[str, Rate]]

    method: Literal["lora", "full"] = Field(default="lora", description="lora or full")
    epochs: Positive = 3
    learning_rate: Positive | None = Field(
        default=None, description="empty: by method; sft 1e-4 (lora) or 1e-5 (full), dpo 1e-5 or 1e-6"
    )
    merger_learning_rate: Positive | None = Field(
        default=None,
        description="of the merger between vision and text, where it trains; empty: learning_rate",
    )
    vision_learning_rate: Positive | None = Field(
        default=None, description="of the rest of the vision tower, where it trains; empty: learning_rate"
    )
    gpus: Natural = Field(default=1, description="GPUs of one job, on each of its nodes; 0 trains on the CPU")
    nodes: Count = Field(default=1, description="machines of one job")
    threads: Count = Field(default=8, description="CPU cores of each process, of which there is one per GPU")
    batch_size: Count = Field(
        default=64,  # eight rows of each of eight images: what a pass holds at 768 px
        description="rows (dpo: pairs) per optimiser step, over all GPUs; sft: on average",
    )
    images_per_step: Count = Field(
        default=8,
        description="distinct images per optimiser step, at least, where there are so many: diverse gradients",
    )
    micro_batch_size: Count | None = Field(
        default=None,
        description="rows (dpo: pairs) per forward pass on one GPU, at most; empty: what micro_batch_tokens holds",
    )
    micro_batch_tokens: Count = Field(
        default=16384,
        description="unique tokens per forward pass on one GPU: each image once, each row's own",
    )
    oom_retries: Natural = Field(
        default=0,
        description="out of GPU memory: start over with half the micro_batch_tokens, at most so many times",
    )
    rows_per_image: Count = Field(
        default=8,
        description="rows of one image in a forward pass, at most, and batch_size / images_per_step: fewer are slower",
    )
    vision_cache_gb: NotNegative = Field(
        default=50,
        description="features of a frozen vision tower kept in results/features; 0 computes them each time",
    )
    warmup: Annotated[float, Field(ge=0, lt=1), NO_TRUTH] = Field(
        default=0.05, description="share of the steps"
    )
    weight_decay: NotNegative = 0.0
    max_steps: Count | None = Field(default=None, description="stop after this many steps")
    freeze_vision: bool = Field(
        default=True, description="full training: leave the whole vision tower as it is"
    )
    lora: Lora = Lora()
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="recompute activations: slower, far less memory; empty: those that the GPU's memory does not hold",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 on a GPU, fp32 on a CPU"
    )
    liger: bool = Field(
        default=False, description="Liger's kernels for norms and MLPs; NVIDIA GPU, pip install liger-kernel"
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp"] = Field(
        default="ddp",
        description="how GPUs share the work; zero1 to zero3 and fsdp (DeepSpeed, PyTorch) divide the model's state",
    )
    save_steps: Count = Field(default=100, description="optimiser steps between checkpoints")
    validation_steps: Count | None = Field(
        default=None,
        description="optimiser steps between validations, which then take the place of save_steps; the model with the "
        "least validation loss is kept; empty: no validation, the last model is kept",
    )
    validation_rows: Count = Field(
        default=500,
        description="sft: validation rows; dpo: pairs of validation images that no train row shows",
    )
    patience: Count | None = Field(
        default=None,
        description="stop after this many validations without a lower loss; empty: train to the end",
    )
    log_steps: Count = Field(default=10, description="optimiser steps between points of the training curve")

    @property
    def rate(self) -> Rate:
        """The learning rate, and where it comes from."""
        if self.learning_rate is None:
            return self.default_rates[self.method]
        return Rate(self.learning_rate, "configured")

    @property
    def trains_vision(self) -> bool:
        """Whether a training from a whole model changes the vision tower."""
        return not self.freeze_vision if self.method == "full" else self.lora.vision

    @field_validator("batch_size")
    @classmethod
    def _is_divided_evenly(cls, rows: int, info: ValidationInfo) -> int:
        if {"gpus", "nodes"} <= info.data.keys():
            processes = max(1, info.data["gpus"]) * info.data["nodes"]
            if rows % processes:
                raise ValueError(f"not a multiple of {processes} GPU(s)")
        return rows


class LossWeights(Section):
    """What a token counts in the loss, which is the weighted mean over all tokens of an optimiser step."""

    thought: Positive = Field(
        default=1.0, description="of <think> to </think>; below the answer's, the thought drowns it less"
    )
    answer: Positive = Field(default=1.0, description="of all that follows, the stop token included")


class Sft(Training):
    """Supervised fine-tuning."""

    default_rates = {
        "lora": Rate(1e-4, "default for lora, as ms-swift's"),
        "full": Rate(1e-5, "default for full training, as ms-swift's"),
    }

    loss_weights: LossWeights = LossWeights()
    trainer: dict[TrainerKey, Any] = Field(
        default={}, description="further keys of TRL's SFTConfig, such as {max_grad_norm: 0.5}"
    )


class Preferences(Section):
    """Pairs for DPO, from train images that no test row uses."""

    own_answers: bool = Field(
        default=True, description="the SFT model's own wrong answers to train questions"
    )
    samples: Count = Field(default=2, description="answers sampled per question")
    temperature: Positive = 1.0
    max_questions: Count = Field(
        default=2000, description="train questions that are sampled, spread over the images"
    )
    rules: Distinct[RuleName] = Field(
        default=["polarity", "swap", "other_image"],
        description="; ".join(f"{name}: {rule.meaning}" for name, rule in RULES.items()),
    )
    max_pairs: Count = Field(default=4000, description="pairs kept in all, own answers first")
    max_pairs_per_image: Count = 8
    files: dict[str, list[Path]] = Field(
        default={}, description="your own preference files (JSONL), by data set"
    )


class Dpo(Training):
    """Direct preference optimisation of the SFT model, which is also the reference."""

    default_rates = {
        "lora": Rate(1e-5, "default for lora, ten times that of full training"),
        "full": Rate(1e-6, "default for full training, as TRL's"),
    }

    epochs: Positive = 1
    batch_size: Count = 32
    beta: Positive = Field(default=0.1, description="strength of the pull towards the reference")
    loss: dict[Loss, Positive] = Field(
        default={"sigmoid": 1.0}, min_length=1, description="TRL's loss types with their weights"
    )
    trainer: dict[DpoTrainerKey, Any] = Field(
        default={}, description="further keys of TRL's DPOConfig, such as {label_smoothing: 0.1}"
    )

    @field_validator("trainer")
    @classmethod
    def _smooths_labels_where_the_loss_needs_it(
        cls, trainer: dict[DpoTrainerKey, Any], info: ValidationInfo
    ) -> dict[DpoTrainerKey, Any]:
        wanting = [name for name in info.data.get("loss", {}) if name in SMOOTHED]
        if wanting and not trainer.get("label_smoothing"):
            raise ValueError(f"loss {wanting[0]} needs a label_smoothing above 0 here")
        return trainer


def _no_key(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an address that begins with http:// or https://")
    if credentials.stands_in(url):
        raise ValueError("configurations are copied into results/; take user and password out")
    return url


class ServedModelSettings(Section):
    """A model at an OpenAI-compatible server."""

    url: Annotated[str, AfterValidator(_no_key)] = Field(
        description="the address before /chat/completions, such as http://127.0.0.1:8000/v1"
    )
    model: str = Field(min_length=1, description="the model's name at that server")
    parameters: dict[str, Any] = Field(default={}, description="further fields of each request")
    concurrent: Count = Field(default=8, description="requests at once")
    timeout: Positive = Field(default=120, description="seconds of one try")
    retries: Natural = Field(default=5, description="further tries of a request that failed")


class JudgeSettings(ServedModelSettings):
    """A language model that judges open answers; its key is JUDGE_API_KEY."""

    parameters: dict[str, Any] = Field(
        default={"temperature": 0, "max_tokens": 512}, description="further fields of each request"
    )


class ServerSettings(ServedModelSettings):
    """The server that backend openai asks; its key is EVALUATION_API_KEY."""

    timeout: Positive = Field(default=600, description="seconds of one try")


class EvaluationSettings(Section):
    """Generation and scoring."""

    backend: Literal["transformers", "vllm", "openai"] = Field(
        default="transformers",
        description="what asks models for ask and evaluate --model_path; vllm: its engine (pip install vllm); openai: server",
    )
    server: ServerSettings | None = Field(
        default=None,
        description="with backend openai: any compatible server, which is sent questions and images, such as "
        "{url: http://127.0.0.1:8000/v1, model: '{model}'}, where {model} stands for untrained, sft or dpo, or the folder's "
        "name",
    )
    engine: dict[str, Any] = Field(
        default={},
        description="with backend vllm: further arguments of vllm.LLM, such as {max_model_len: 8192}",
    )
    tokens_per_batch: Count = Field(
        default=131_072,
        description="tokens that are kept at once, prompts and all that may be written: 40 kB each for 4.1v in bf16, "
        "190 kB for 4.5v",
    )
    max_new_tokens: Count = Field(default=1024, description="answers cut off here are counted as truncated")
    thought_budget: Count | None = Field(
        default=None,
        description="tokens of a thought, which is closed there for the answer to follow; empty: no limit",
    )
    max_validation_rows: Count = Field(
        default=500,
        description="validation rows that decide between the SFT and the DPO model, never seen in training",
    )
    blank_image: bool = Field(
        default=True, description="ask the better of the SFT and the DPO model about blank images as well"
    )
    shuffled_image: bool = Field(
        default=True,
        description="and about other images: of the same set and, where there are some, modality",
    )
    gpus: Natural = Field(
        default=1,
        description="GPUs of one job, each for a part of the questions, or all for a model that does not fit one; 0: CPU",
    )
    judge: JudgeSettings | None = Field(
        default=None,
        description="a language model's verdicts beside the other protocols, such as {url: http://127.0.0.1:8000/v1, "
        "model: Qwen3-32B}; empty: none, and nothing is sent anywhere",
    )
    threads: Count = Field(default=8, description="CPU cores of one job")

    @field_validator("thought_budget")
    @classmethod
    def _leaves_an_answer(cls, budget: int | None, info: ValidationInfo) -> int | None:
        if budget is not None and budget >= info.data.get("max_new_tokens", budget + 1):
            raise ValueError("no answer can follow such a thought within max_new_tokens")
        return budget

    @model_validator(mode="after")
    def _backend_can_do_it(self) -> Self:
        if self.backend == "openai" and self.server is None:
            raise ValueError("backend openai needs server: {url: …, model: …}")
        if self.backend == "vllm" and self.gpus == 0:
            raise ValueError("backend vllm needs gpus of 1 or more")
        if self.backend != "transformers" and self.thought_budget is not None:
            raise ValueError(f"thought_budget is of backend transformers alone, not of {self.backend}")
        return self

    @property
    def asked(self) -> dict[str, tuple[str, str]]:
        """By line of an evaluation, which model of the run is asked about which variant of the pictures."""
        found = {stage: (stage, "original") for stage in ("untrained", "sft", "dpo")}
        if self.blank_image:
            found["blank_image"] = ("final", "blank")
        if self.shuffled_image:
            found["shuffled_image"] = ("final", "shuffled")
        return found


# One name, or several.
Names = Annotated[
    list[str],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]
    ),
]
OverriddenSection = Literal["sft", "preferences", "dpo", "evaluation"]
OVERRIDDEN: tuple[OverriddenSection, ...] = get_args(OverriddenSection)


class RunChoice(Section):
    """Runs by their names, one or a list, and what is other for them; a name that is left out means all."""

    dataset: Names = []
    model_version: Names = []
    mode: Names = []
    sft: dict[str, Any] = Field(default={}, description="laid over the section sft for these runs")
    preferences: dict[str, Any] = {}
    dpo: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}


def _no_credentials(uri: str) -> str:
    if credentials.stands_in(uri):
        raise ValueError(
            "configurations are copied into results/ and MLflow; take user and password out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for a database, MLFLOW_TRACKING_URI)"
        )
    return uri


Job = Literal[
    "download", "download_model", "convert", "validate", "sft", "preferences", "dpo", "ask", "evaluate", "report",
    "export",
]  # fmt: skip


class Cluster(Section):
    """Where jobs run on a cluster; no result depends on it."""

    download_here: bool = Field(
        default=False,
        description="downloads run beside Snakemake, such as on the login node, where compute nodes have no internet",
    )
    scratch: str | None = Field(
        default=None,
        description="a folder of each node's own disk, such as $TMPDIR: weights and features are read from copies there",
    )
    container: str | None = Field(
        default=None,
        description="with --sdm apptainer: the image that jobs run in, such as medvqa.sif of envs/container.def",
    )
    mem_mb: dict[Job, Count] = Field(
        default={},
        description="megabytes of main memory by kind of job, such as {sft: 90000}; unset ones are estimated",
    )
    runtime: dict[Job, Count] = Field(
        default={}, description="minutes by kind of job, such as {sft: 720}; unset ones are estimated"
    )


class Config(Section):
    """Everything that a user sets."""

    seed: Annotated[int, Field(ge=0, lt=2**32), NO_TRUTH] = Field(
        default=42, description="of splits, sampling, initialisation and data order"
    )
    datasets: dict[str, Dataset] = Field(
        default={
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
    models: dict[str, dict[Mode, Checkpoint]] = Field(
        default={
            name: {mode: Checkpoint(repository=id) for mode, id in version.repositories.items()}
            for name, version in VERSIONS.items()
        },
        min_length=1,
        description="checkpoints by model version and mode",
    )
    results: Path = Field(default=Path("results"), description="the folder of everything made")
    runs: list[RunChoice] = Field(
        default=[],
        description="the runs to make and what is other for them, such as {model_version: 4.5v, sft: {gpus: 8}}; empty: all",
    )
    limit: Annotated[int, Field(ge=FEWEST_ROWS), NO_TRUTH] | None = Field(
        default=None,
        description="to try the whole chain: rows of each split of a set, at most, drawn by the seed; the results, which "
        "are marked, lie in results/limited_{limit}; empty: all rows",
    )
    terms: list[Path] = Field(
        default=[],
        description="your own medical terms (YAML), beside those of workflow_scripts/datasets/terminology/",
    )
    data: Data = Data()
    sft: Sft = Sft()
    preferences: Preferences = Preferences()
    dpo: Dpo = Dpo()
    evaluation: EvaluationSettings = EvaluationSettings()
    output_in_use: InUse = Field(
        default="end",
        description="another command writes the same output: end with an error that names it, or wait for it",
    )
    cluster: Cluster = Cluster()
    tracking: Distinct[Literal["mlflow", "tensorboard", "wandb"]] = Field(
        default=["mlflow"], description="mlflow, tensorboard, wandb"
    )
    tracking_uri: Annotated[str, AfterValidator(_no_credentials)] | None = Field(
        default=None, description="an MLflow server; empty: MLFLOW_TRACKING_URI, else results/mlflow.db"
    )
    tracking_images: bool = Field(
        default=True,
        description="whether trackers are given pictures of the data: sampled predictions, pages that show some",
    )
    _of_run: tuple[str, str] = ("", "")  # where a stage is shown a part: what `of_run` says of the whole

    @property
    def of_run(self) -> tuple[str, str]:
        """(fingerprint, YAML) of the whole configuration of the run that a stage is shown a part of; else empty."""
        return self._of_run

    _whole: "Config | None" = None

    def part_of(self, whole: "Config") -> Self:
        """This part of a configuration, which knows the `whole` for the record."""
        self._whole = whole
        return self

    def recorded(self) -> dict[str, Any]:
        """The whole configuration as plain values, also where a stage is shown a part: for records, no result depends on it."""
        return (self._whole or self).model_dump(mode="json")

    def layout(self, root: Path | None = None) -> Layout:
        """Where everything lies, below `root` instead of `results`; what a limited run makes lies in a folder of its own."""
        whole = root or self.results
        return Layout(whole / f"limited_{self.limit}", shared=whole) if self.limit else Layout(whole)

    def sources(self, dataset: str) -> dict[str, Source]:
        """The sources that `dataset` is made of, by name."""
        entry = self.dataset(dataset)
        if isinstance(entry, Source):
            return {dataset: entry}
        members = {name: self.datasets[name] for name in entry.members}
        return {name: member for name, member in members.items() if isinstance(member, Source)}

    def dataset(self, name: str) -> Source | Combination:
        """What `name` stands for; a UserError suggests the nearest where it is unknown."""
        if name not in self.datasets:
            raise UserError(f"--dataset: {unknown(name, self.datasets)}")
        return self.datasets[name]

    def checkpoint(self, version: str, mode: str) -> Checkpoint:
        """Where the model of (version, mode) comes from; a UserError suggests the nearest where it is unknown."""
        if version not in self.models:
            raise UserError(f"--model_version: {unknown(version, self.models)}")
        modes: dict[str, Checkpoint] = dict(self.models[version].items())
        if mode not in modes:
            raise UserError(f"--mode: {unknown(mode, modes)} for {version}")
        return modes[mode]
