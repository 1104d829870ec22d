"""Where everything under `results/` lies: the one place that knows."""

from dataclasses import dataclass
from pathlib import Path

# What several stages write or read in folders that they are given.
MANIFEST = "manifest.json"  # beside what was fetched: each file with its digest, and where it came from
METRICS = "metrics.json"  # beside a model that was trained: its last file
SUMMARY = "summary.json"  # beside records: what was read, kept and dropped
DROPPED = "dropped.jsonl"
ANNOTATIONS = "annotations.jsonl"

STAGES = ("download", "convert", "validate", "sft", "preferences", "dpo", "ask", "evaluate", "report")


@dataclass(frozen=True)
class Run:
    """One (dataset, model version, mode), the unit of the chain."""

    dataset: str
    model_version: str
    mode: str

    def __str__(self) -> str:
        return f"{self.dataset}_{self.model_version}_{self.mode}"


@dataclass(frozen=True)
class Layout:
    """The results folder; what is fetched, which is large, may lie in that of other runs."""

    root: Path
    shared: Path | None = None

    @property
    def fetched(self) -> Path:
        """The folder of raw files and models."""
        return self.shared or self.root

    def raw(self, source: str) -> Path:
        """The raw files of a source, in its original layout, with manifest.json."""
        return self.fetched / "raw" / source

    def raw_manifest(self, source: str) -> Path:
        """The raw files of a source with their digests."""
        return self.raw(source) / MANIFEST

    def model(self, model_version: str, mode: str) -> Path:
        """A checkpoint as it was fetched, with manifest.json."""
        return self.fetched / "models" / f"{model_version}_{mode}"

    def data(self, run: Run) -> Path:
        """The records of a run, and what conversion and validation say of them."""
        return self.root / "data" / str(run)

    def split(self, run: Run, split: str) -> Path:
        """The records of one of records.SPLITS."""
        return self.data(run) / f"{split}.jsonl"

    def data_summary(self, run: Run) -> Path:
        """What conversion read, kept and dropped."""
        return self.data(run) / SUMMARY

    def validation(self, run: Run) -> Path:
        """What validation found in records that passed."""
        return self.data(run) / "validation.json"

    def validation_page(self, run: Run) -> Path:
        """The same with pictures."""
        return self.data(run) / "validation.html"

    def trained(self, stage: str, run: Run) -> Path:
        """The final model of `sft` or `dpo`, with metrics.json."""
        return self.root / stage / str(run)

    def metrics(self, stage: str, run: Run) -> Path:
        """The curve and the cost of a training that has ended."""
        return self.trained(stage, run) / METRICS

    def checkpoints(self, stage: str, run: Run) -> Path:
        """Unfinished training. No output of Snakemake, which deletes the outputs of a failed job."""
        return self.root / "checkpoints" / stage / str(run)

    def overfit(self, stage: str, run: Run) -> Path:
        """Where a self-test of `stage` works, of which nothing stays."""
        return self.root / "overfit" / stage / str(run)

    def features(self) -> Path:
        """What frozen vision towers made of images, for all runs."""
        return self.root / "features"

    def preferences(self, run: Run) -> Path:
        """The preference pairs of a run."""
        return self.root / "preferences" / f"{run}.jsonl"

    def validation_pairs(self, run: Run) -> Path:
        """Pairs about validation images that no train row shows, for DPO's validation."""
        return self.root / "preferences" / f"{run}.validation.jsonl"

    def pairs_summary(self, run: Run) -> Path:
        """How many pairs of each origin a run has."""
        return self.root / "preferences" / f"{run}.json"

    def pairs_page(self, run: Run) -> Path:
        """Pairs of each origin for a person to read."""
        return self.root / "preferences" / f"{run}.html"

    def answers(self, run: Run, model: str, variant: str) -> Path:
        """What a model of a run answered, with a summary beside it that says how it was asked."""
        return self.root / "answers" / str(run) / f"{model}.{variant}.jsonl"

    def kept_answers(self) -> Path:
        """Every answer that was ever generated, for all runs."""
        return self.root / "answers" / "kept"

    def evaluation(self, run: Run) -> Path:
        """The scores of all stages of a run."""
        return self.root / "eval" / f"{run}.json"

    def predictions(self, run: Run) -> Path:
        """What each stage of a run answered to each test question."""
        return self.root / "eval" / str(run) / "predictions.jsonl"

    def scores(self, run: Run) -> Path:
        """The same as a table, with the score of each protocol."""
        return self.root / "eval" / str(run) / "predictions.parquet"

    def evaluation_page(self, run: Run) -> Path:
        """The page of a run's numbers, each leading to the questions behind it."""
        return self.root / "eval" / str(run) / "evaluation.html"

    def exported(self, run: Run) -> Path:
        """The final model of a run for others: merged, in the hub's layout, with a card."""
        return self.root / "export" / str(run)

    def model_evaluation(self, model: Path) -> Path:
        """The scores of one model, or of a folder of models: named after its place, here or anywhere."""
        place, root = model.resolve(), self.root.resolve()
        named = place.relative_to(root) if place.is_relative_to(root) else place.relative_to(place.anchor)
        return self.root / "eval" / "models" / named.with_name(f"{named.name}.json")

    def judged(self) -> Path:
        """What a judge has said of answers, for all runs."""
        return self.root / "judge" / "verdicts.jsonl"

    def charts(self, run: Run) -> Path:
        """The charts of a run's evaluation, as pictures."""
        return self.root / "eval" / str(run) / "charts"

    def journals(self) -> Path:
        """What trackers are told, and how far each has it: {run}/{configuration}/{stage}.jsonl."""
        return self.root / "tracking"

    def crate(self, run: str) -> Path:
        """A run packed for others."""
        return self.root / "crates" / f"{run}.zip"

    def report(self) -> Path:
        """The page about all runs."""
        return self.root / "report" / "index.html"

    def log(self, stage: str, name: str = "") -> Path:
        """What the last attempt at a job of `stage` printed; `name` is a run, a source or a model, with more after a /."""
        return self.root / "logs" / (f"{stage}/{name}.log" if name else f"{stage}.log")


def job_of(log: Path) -> tuple[str, str]:
    """(stage, name) of the job whose `Layout.log` this is."""
    parts = log.with_suffix("").parts
    first = max(
        (place + 1 for place, part in enumerate(parts[:-1]) if part == "logs"), default=len(parts) - 1
    )
    return parts[first], "/".join(parts[first + 1 :])
