"""Put a run's model into the form that others load, serve and publish: `results/export/{run}/`."""

import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from workflow_scripts.base import files, locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, METRICS, Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.evaluation.table import Evaluation
from workflow_scripts.models import (
    adapters,
    bases,
    generation_settings,
    loading,
    merging,
    processors,
    serving,
)
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.pages import model_card
from workflow_scripts.pages.model_card import Card, Trained, TrainedOn

logger = logging.getLogger(__name__)

CARD = "README.md"
ANY_SIDE = 1 << 15  # of an image: the trained processor's own limits are kept


def export(
    settings: Config, layout: Layout, run: Run, stage: str | None = None, adapter: bool = False
) -> Path:
    """Write the folder, whole or not at all, of the model of `stage` or else of the final one; returns it."""
    evaluation = _evaluation(layout, run, stage)
    stage = stage or str(evaluation["final_stage"])
    path, origin = layout.trained(stage, run), layout.model(run.model_version, run.mode)
    if not bases.is_model(path):
        raise UserError(f"{path}: no model; train the run first")
    trained = Trained(
        run=run,
        stage=stage,
        sources=[_source(layout, name) for name in settings.sources(run.dataset)],
        evaluation=evaluation,
        validation=files.read_object(layout.validation(run)),
        metrics=files.read_object(path / METRICS),
    )
    _write(path, origin, run, layout.exported(run), adapter, trained)
    return layout.exported(run)


def export_model(path: Path, version: str, mode: str, target: Path, adapter: bool = False) -> None:
    """Write the model or adapter at `path`, which any tool may have trained, to `target`; its card has no figures."""
    _write(path, loading.base_of(path), Run("", version, mode), target, adapter, None)


def _write(path: Path, origin: Path, run: Run, target: Path, adapter: bool, trained: Trained | None) -> None:
    """Write the model at `path`, trained from the whole one in `origin`, with its processor and card to `target`."""
    processor = processors.load(path, VERSIONS[run.model_version], ANY_SIDE)
    del processor.image_processor.frames  # it is ours, and no setting of the processor
    merged = not (adapter and _alone(path))
    with files.replacing_folder(target) as folder:
        if merged:
            merging.write(path, origin, folder)
            shutil.copy(origin / bases.CONFIG, folder)
        else:
            for name in (bases.ADAPTER_CONFIG, bases.ADAPTER_WEIGHTS):
                shutil.copy(path / name, folder)
        _write_generation_config(origin, processor, run, folder)
        processor.save_pretrained(folder)
        # As on the hub, and as transformers 4 reads it.
        processor.image_processor.save_pretrained(folder)
        card = _card(path, origin, run, processor, merged, trained)
        files.write_text(folder / CARD, model_card.markdown(card))


def _evaluation(layout: Layout, run: Run, stage: str | None) -> Evaluation:
    path = layout.evaluation(run)
    if not path.is_file():
        raise UserError(f"{path}: no such file; evaluate the run first: its figures stand in the model card")
    evaluation: Evaluation = files.read_object(path, "final_stage", "stages")  # type: ignore[assignment]
    if stage and stage not in evaluation["stages"]:
        raise UserError(f"{path}: has no figures of {stage}")
    return evaluation


def _alone(path: Path) -> bool:
    """Whether an adapter can go without its base: vLLM would serve all of it."""
    if not bases.is_adapter(path):
        raise UserError(f"{path}: no adapter but a whole model; export it without --adapter")
    if ignored := serving.ignored_by_vllm(path):
        logger.warning(
            "vLLM %s would not serve %d modules of the adapter (%s, …); it is merged into its base instead",
            serving.VLLM,
            len(ignored),
            ignored[0],
        )
    return not ignored


def _write_generation_config(origin: Path, processor: Processor, run: Run, folder: Path) -> None:
    """The checkpoint's own settings, with every token that ends an answer."""
    config = GenerationConfig.from_pretrained(origin)
    stops = generation_settings.stops(config, processor.tokenizer, VERSIONS[run.model_version])
    config.eos_token_id = sorted(stops)
    config.save_pretrained(folder)


def _card(
    path: Path, origin: Path, run: Run, processor: Processor, merged: bool, trained: Trained | None
) -> Card:
    version, adapted = VERSIONS[run.model_version], bases.is_adapter(path)
    return Card(
        name=str(trained.run) if trained else path.resolve().name,
        merged=merged,
        base=_origin(origin),
        trained=trained,
        prompt=processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which modality?"}]}],
            add_generation_prompt=True,
            tokenize=False,
            **version.template_options(run.mode),
        ),
        answer=version.answer_format(run.mode).write("CT", "…"),
        pixels=processor.image_processor.size["longest_edge"] // 2,
        rank=files.read_value(path / bases.ADAPTER_CONFIG, "r") if adapted else 0,
        max_lora_rank=0 if merged else serving.max_lora_rank(path),
        vision=adapted and adapters.adapts_vision(path),
        vllm=serving.VLLM,
    )


def _origin(folder: Path) -> dict[str, Any]:
    """Where the base model is from; "" and False for what does not hold."""
    return {
        "repository": "",
        "commit": "",
        "embedded": False,
        **(files.read_value(folder / MANIFEST, "origin") if (folder / MANIFEST).is_file() else {}),
    }


def _source(layout: Layout, name: str) -> TrainedOn:
    origin = files.read_value(layout.raw_manifest(name), "origin")
    where = origin.get("repository") or (
        "drawn phantoms" if origin.get("embedded") else "files of the trainer's own"
    )
    return TrainedOn(name, str(where), str(origin.get("licence") or "not stated"))


def stage(settings: Config, layout: Layout, run: Run, chosen: str | None, adapter: bool) -> None:
    """`export`, by one command at a time."""
    with locks.one_writer(layout.exported(run), settings.output_in_use):
        export(settings, layout, run, chosen, adapter)
