"""What a job of the workflow asks a cluster for: memory of the machine and minutes, by its model, its rows, its way.

These are bounds for a scheduler and no forecasts: the rates are those of the slowest card and share that anybody should
meet. Memory of the GPUs is `needs`. Light, for Snakemake asks for every job while it plans.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from workflow_scripts.base import attempts, files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.plan import Wildcards, quickly_asked
from workflow_scripts.configuration.settings import Config, Training
from workflow_scripts.models import sizes
from workflow_scripts.models.sizes import Size
from workflow_scripts.training.activations import BF16_BYTES, FP32_BYTES
from workflow_scripts.training.division import STRATEGIES
from workflow_scripts.training.estimation import sets, speed
from workflow_scripts.training.estimation.sets import Rows

# Measured (benchmarks/README.md): the lowest share of the rate, at 336 px with one question an image; answers of 32 tokens
# to 56 questions at 21.5 a second on an H200, the reading of the prompts included.
LOWEST_SHARE = 0.117
STEP_SECONDS = 56 / 21.5 / 32


@dataclass(frozen=True)
class Rates:
    """Of a card: operations a second of matrix products, of which a training uses the `share`, and bytes a second read."""

    operations: float
    share: float
    read: float


# By its data sheet an A100 has 312 TFLOP/s and 2.0 TB/s; of the first as much is had as of an H200's 989.
BOUND = Rates(312 / 989 * speed.H200 * 1e12, LOWEST_SHARE, 2.0e12)
H200 = Rates(speed.H200 * 1e12, speed.UTILISED[1], 4.8e12)
# Not measured, and low: bytes a second of a shared disk, between the GPUs of a node, between nodes, from the internet.
DISK, LINK, NETWORK, INTERNET = 0.5e9, 100e9, 10e9, 20e6
FETCHED = 20e9  # bytes of a set's images, at most
START_MINUTES = 20  # environment, imports, kernels that are compiled, a shared disk that is slow today
PROCESS = (
    24e9  # bytes beside the weights: libraries, CUDA's part, pinned batches, features of images, workers
)
LIGHT = 4e9  # a stage without a model: 1.0 GB was measured at most
# Seconds for so many rows, on two cores (benchmarks/README.md); ten times that is asked for.
WITHOUT_MODEL = {"convert": (6.1, 49_071), "validate": (20.6, 49_071), "evaluate": (42.0, 7_000)}
PROMPT = 400  # tokens of a question and its image, beside what is written
SHORT = 128  # tokens that a trained model writes
UNKNOWN_ROWS = 20_000  # of a set that nobody has counted: as many as the largest published one
OF_TEST = 1 / 3  # test rows for each train row, at most, in the published sets

SECTIONS = {"sft": "sft", "dpo": "dpo", "preferences": "evaluation", "ask": "evaluation"}
Kind = Literal["mem_mb", "runtime"]
# What SLURM calls the end of a job that had too little of it.
LACKED: dict[Kind, str] = {"mem_mb": "OUT_OF_MEMORY", "runtime": "TIMEOUT"}


@dataclass(frozen=True)
class Need:
    """Of one job: bytes of main memory on each node, and seconds."""

    memory: float
    seconds: float

    def resource(self, kind: Kind) -> int:
        """As Snakemake counts it: megabytes, or minutes."""
        if kind == "mem_mb":
            return math.ceil(self.memory / 1e9) * 1000
        return START_MINUTES + math.ceil(self.seconds / 600) * 10


class Requests:
    """The needs of all jobs of a workflow."""

    def __init__(self, settings: Config, layout: Layout, rates: Rates = BOUND) -> None:
        self._settings, self._layout, self._rates = settings, layout, rates
        self._demands: dict[Run | None, Demand] = {}

    def of(self, rule: str) -> dict[str, Callable[..., int]]:
        """`mem_mb` and `runtime` of a rule, for Snakemake.

        They are as much again where an attempt of this invocation has ended by a lack of them, and only then.
        """
        return {kind: self._resource(rule, kind) for kind in LACKED}

    def _resource(self, rule: str, kind: Kind) -> Callable[..., int]:
        def resource(wildcards: Wildcards, attempt: int) -> int:
            run, name = _named(wildcards)
            asked = self.first(rule, run, kind, wildcards.get("model", ""))
            if attempt == 1 and not attempts.goes_on():
                return asked
            ends = attempts.ends(attempts.note_of(self._layout.log(_stage(rule), name)))
            return asked * (1 + ends.count(LACKED[kind]))

        return quickly_asked(resource)

    def first(self, rule: str, run: Run | None, kind: Kind, model: str = "untrained") -> int:
        """What the first attempt at a job of `rule` asks for: what is stated, else what is estimated."""
        stated: dict[str, int] = dict(getattr(self._settings.cluster, kind))
        return stated.get(rule) or self.need(rule, run, model).resource(kind)

    def need(self, rule: str, run: Run | None, model: str = "untrained") -> Need:
        """Of a job of `rule`; `model` is which one is asked. `run` is None where a job is of no run."""
        if run not in self._demands:
            self._demands[run] = Demand(self._settings, self._layout, run, self._rates)
        return self._demands[run].need(rule, model)


def _stage(rule: str) -> str:
    return "download" if rule == "download_model" else rule


def _named(wildcards: Wildcards) -> tuple[Run | None, str]:
    """The run of a job, if only of its model, and what its log is called."""
    run = Run(*(wildcards.get(name, "") for name in ("dataset", "model_version", "mode")))
    if wildcards.get("source"):
        return None, wildcards.get("source")
    if not run.model_version:
        return None, ""
    if not run.dataset:
        return run, f"{run.model_version}_{run.mode}"
    if wildcards.get("variant"):
        return run, f"{run}/{wildcards.get('model')}.{wildcards.get('variant')}"
    return run, str(run)


@dataclass(frozen=True)
class Demand:
    """What the jobs of a run have to do with."""

    settings: Config
    layout: Layout
    run: Run | None
    rates: Rates

    def need(self, rule: str, model: str) -> Need:
        match rule:
            case "sft":
                return self._training(self.own.sft, self.rows)
            case "dpo":
                pairs = self.own.preferences.max_pairs
                rows = replace(self.rows, rows=2 * pairs, images=min(pairs, max(1, self.rows.images)))
                return self._training(self.own.dpo, rows, more=1.5)  # the reference reads each pair too
            case "preferences":
                questions = self.own.preferences.max_questions * self.own.preferences.samples
                return self._asking(questions, short=True)
            case "ask":
                questions = math.ceil(OF_TEST * self.rows.rows) + self.own.evaluation.max_validation_rows
                return self._asking(questions, short=model != "untrained")
            case "download":
                return Need(LIGHT, FETCHED / INTERNET)
            case "download_model":
                return Need(LIGHT, self._weights / INTERNET)
            case "export":
                return Need(LIGHT + 2 * self._weights, 4 * self._weights / DISK)
            case "convert" | "validate" | "evaluate":
                seconds, counted = WITHOUT_MODEL[rule]
                return Need(LIGHT, 10 * seconds * (1 + OF_TEST) * self.rows.rows / counted)
        return Need(LIGHT, 0.0)

    @cached_property
    def own(self) -> Config:
        """The settings of the run; those of the workflow for a job of its model alone."""
        return runs.settings_of(self.settings, self.run) if self.run and self.run.dataset else self.settings

    @cached_property
    def size(self) -> Size:
        """The model's, of which an embedded one has nothing."""
        assert self.run is not None
        found = sizes.published(self.run.model_version)
        if self.settings.checkpoint(self.run.model_version, self.run.mode).embedded:
            return replace(found, numbers=dict.fromkeys(found.numbers, 0))
        return found

    @property
    def _weights(self) -> float:
        return self.size.total * BF16_BYTES

    @cached_property
    def rows(self) -> Rows:
        """The train rows: published counts, else those that conversion found, else a large set's."""
        assert self.run is not None
        try:
            return sets.as_published(self.settings, self.run, self.size)
        except UserError:
            largest = self.size.image_tokens(self.settings.data.max_image_side)
            summary = self.layout.data_summary(self.run)
            known = files.read_object(summary)["rows"]["train"] if summary.is_file() else UNKNOWN_ROWS
            return Rows(known, known, 40.0, largest, largest, "the number of rows, each with an image")

    def _training(self, settings: Training, rows: Rows, more: float = 1.0) -> Need:
        size, strategy = self.size, STRATEGIES[settings.strategy]
        here = max(1, settings.gpus)
        count = here * settings.nodes
        steps = math.ceil(settings.epochs * rows.rows / settings.batch_size)
        done = min(steps, settings.max_steps or steps)
        epochs = settings.epochs * done / steps
        if settings.validation_steps:
            epochs += done // settings.validation_steps * settings.validation_rows / rows.rows
        speed_of_all = self.rates.operations * self.rates.share * count
        seconds = more * epochs * speed.operations(size, settings, rows) / speed_of_all
        # Every image once through the tower, two operations a parameter and patch.
        patches = rows.images * rows.image * size.vision.spatial_merge_size**2
        seconds += 2 * size.numbers["vision tower"] * patches / speed_of_all
        if strategy.divides_weights:
            # Gathered for the forward pass, for what it recomputes, and for the backward pass.
            share = rows.tokens_of_rows(settings.batch_size / count, sets.together(settings))
            passes = done * max(1, math.ceil(share / settings.micro_batch_tokens))
            seconds += more * passes * 3 * self._weights / (LINK if settings.nodes == 1 else NETWORK)
        full = settings.method == "full"
        state = size.total * (BF16_BYTES + 3 * FP32_BYTES) if full else 0.0  # of an adapter it is nothing
        saves = done // (settings.validation_steps or settings.save_steps) + 1
        seconds += (self._weights + saves * (state + self._weights * full)) / DISK
        memory = here * PROCESS
        if strategy.divides_weights:  # read once for all, and gathered whole to be saved
            memory += 2 * size.total * (FP32_BYTES if full and strategy.library == "fsdp" else BF16_BYTES)
            if strategy.offloads:
                memory += self._weights + state / settings.nodes
        else:
            memory += here * size.total * (FP32_BYTES if full and strategy.library == "torch" else BF16_BYTES)
        return Need(memory, seconds)

    def _asking(self, questions: float, short: bool) -> Need:
        settings = self.own.evaluation
        tokens = min(SHORT, settings.max_new_tokens) if short else settings.max_new_tokens
        several = 1 if self.size.is_moe else max(1, settings.gpus)  # models, each asked a part
        at_once = max(1, settings.tokens_per_batch // (settings.max_new_tokens + PROMPT))
        step = STEP_SECONDS + self._weights / self.rates.read
        seconds = math.ceil(questions / several / at_once) * tokens * step + self._weights / DISK
        return Need(several * (PROCESS + self._weights), seconds)
