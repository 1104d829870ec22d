"""Answers to records: those that are kept, and from the model what is missing, on several GPUs where it has them."""

import logging
import multiprocessing
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from workflow_scripts.base import files, gpus, job_log, locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation import keeping
from workflow_scripts.evaluation.examiner import Examiner
from workflow_scripts.evaluation.keeping import KeptAnswer
from workflow_scripts.evaluation.questions import Variant, question_of
from workflow_scripts.models.dialogue import image_paths
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.prompt_styles import opened

logger = logging.getLogger(__name__)

SAID_EVERY = 60.0  # seconds between two lines of progress
WAY = "way.json"  # beside kept answers: what they depend on, and the checkpoint's own generation settings


@dataclass(frozen=True)
class AskingResult:
    """An answer for each record, how many of these were asked now, and the checkpoint's own generation settings.

    The part of a thought that stood in a prompt stands at the beginning of its text.
    """

    rows: list[KeptAnswer]
    asked: int
    checkpoint_settings: dict[str, Any]


@dataclass(frozen=True)
class Share:
    """What one process asks: `records` by key, about images relative to `folder`; its answers are appended to `kept`.

    `way` is what the answers depend on besides. `spread` a model that does not fit one GPU over all.
    """

    examiner: Examiner
    model: Path
    way: dict[str, Any]
    records: dict[str, Record]
    folder: Path
    blank: bool
    spread: bool
    kept: Path


def ask(
    examiner: Examiner,
    model: Path,
    processor: Processor,
    records: Sequence[Record],
    folder: Path,
    variant: Variant,
    kept: Path,
) -> AskingResult:
    """The answers of the model at `model` to `records`, whose images are relative to `folder`, by the model's `processor`.

    Those that `kept` has, to the same prompt and images, are taken from there. The others are asked for, each question
    once; one command at a time asks the same model in the same way, others wait for it.
    """
    dialogue = examiner.dialogue(processor)
    prompts = [dialogue.prompt(question_of(record)) for record in records]
    digest = cache(files.sha256)
    keys = [_key(prompt, record, folder, digest) for prompt, record in zip(prompts, records, strict=True)]
    way = examiner.way(model, processor)
    place = kept / files.fingerprint(way) / variant
    with locks.one_writer(place, "wait"):
        known = _known(place)
        missing = {key: record for key, record in zip(keys, records, strict=True) if key not in known}
        if known:
            logger.info("%d of %d questions were answered before", len(keys) - len(missing), len(keys))
        if missing:
            devices = _devices(examiner, model)[: len(missing)]
            spread = examiner.shares and not devices
            blank = variant == "blank"
            share = Share(examiner, model, way, missing, folder, blank, spread, place / "0.jsonl")
            if devices:
                _ask_on(devices, share)
            else:
                _ask_share(share, processor)
            known = _known(place)
    settings = files.read_value(place.parent / WAY, "generation_config") if records else {}
    rows = [
        _with_opening(known[key], opened(prompt, examiner.style))
        for key, prompt in zip(keys, prompts, strict=True)
    ]
    return AskingResult(rows, len(missing), settings)


def _known(place: Path) -> dict[str, KeptAnswer]:
    return keeping.read(place.glob("*.jsonl"))


def _key(prompt: str, record: Record, folder: Path, digest: Callable[[Path], str]) -> str:
    """What a question is known by: its rendered prompt and the bytes of its images."""
    images = [digest(Path(path)) for path in image_paths(record["images"], folder)]
    return files.fingerprint([prompt, images])


def _with_opening(answer: KeptAnswer, opening: str) -> KeptAnswer:
    return {**answer, "text": opening + answer["text"]}


def _devices(examiner: Examiner, model: Path) -> list[str]:
    """The GPUs of the job where each may ask a share of the questions, because the model fits one; else none."""
    from workflow_scripts.models import loading

    names = gpus.visible()[: examiner.asking.gpus] if examiner.shares else []
    return names if len(names) > 1 and loading.fits(model, gpus.memory()) else []


def _ask_on(devices: Sequence[str], share: Share) -> None:
    """Ask in a process of its own on each of `devices`."""
    logger.info("%d processes ask a part of the questions each", len(devices))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_ask_alone, args=(part, device), daemon=True)
        for part, device in zip(_parts(share, len(devices)), devices, strict=True)
    ]
    started = []
    try:
        for process in processes:
            process.start()
            started.append(process)
        # Listed once a turn: to wait for none, because all have ended meanwhile, would never end.
        while running := [process for process in processes if process.exitcode is None]:
            if any(process.exitcode for process in processes):
                break
            connection.wait([process.sentinel for process in running])
    finally:
        for process in started:
            process.terminate()
            process.join()
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise UserError(f"a process that asked {said_of_end(failed)}")


def said_of_end(statuses: Sequence[int]) -> str:
    """How the first of several processes ended that did not succeed, by the statuses of all of these."""
    cause = max(statuses)  # its own status, then SIGKILL, then the SIGTERM that we send to the others
    if cause < 0:
        return f"was killed by signal {-cause}; where it was for memory, ask for more"
    return f"ended with status {cause}, and says why above"


def _parts(share: Share, count: int) -> list[Share]:
    """The questions dealt to `count` processes, all about an image to the same one."""
    by_images: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, record in share.records.items():
        by_images[tuple(record["images"]) or (key,)].append(key)
    dealt: list[dict[str, Record]] = [{} for _ in range(count)]
    for keys in sorted(by_images.values(), key=len, reverse=True):
        least = min(dealt, key=len)
        least.update({key: share.records[key] for key in keys})
    return [
        replace(share, records=records, kept=share.kept.with_name(f"{number}.jsonl"))
        for number, records in enumerate(dealt)
    ]


def _ask_alone(share: Share, device: str) -> None:
    """What a process of its own does: see one GPU, and end with the process that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ[gpus.VARIABLE] = device
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s GPU {device} %(message)s", datefmt="%H:%M:%S"
    )
    try:
        with job_log.kept():
            _ask_share(share)
    except UserError as error:
        sys.exit(f"error: {error}")


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _ask_share(share: Share, processor: Processor | None = None) -> None:
    keys, records = list(share.records), list(share.records.values())
    progress = AskingProgress(len(records))
    with (
        share.examiner.model(share.model, processor, share.spread) as model,
        keeping.appending(share.kept) as append,
    ):
        settings = {**share.way, "generation_config": model.checkpoint_settings}
        files.write_json(share.kept.parents[1] / WAY, settings)
        before = time.monotonic()
        for index, (generation,) in model.stream(records, share.folder, share.blank):
            now = time.monotonic()
            append(
                {
                    "key": keys[index],
                    "text": generation.text,
                    "truncated": generation.truncated,
                    "forced": generation.forced,
                    "repeated": generation.repeated,
                    "tokens": generation.tokens,
                    "seconds": now - before,
                }
            )
            progress.one_more()
            before = now


class AskingProgress:
    """A line on how far it is, now and then."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = self._said = time.monotonic()

    def one_more(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._said >= SAID_EVERY:
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate / 60
            logger.info(
                "%d of %d questions, %.1f a second, %.0f minutes left", self._done, self._total, rate, left
            )
            self._said = now
