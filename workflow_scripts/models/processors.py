"""Loading the processor of a checkpoint: tokenizer, chat template and image arithmetic, without the model."""

import logging
import sys
from pathlib import Path
from typing import Any

from transformers import AutoProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME
from transformers.utils import logging as transformers_logging

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.models import bases
from workflow_scripts.models.catalogue import Version
from workflow_scripts.models.interfaces import Processor

logger = logging.getLogger(__name__)

_CONFIGURATIONS = (PROCESSOR_NAME, IMAGE_PROCESSOR_NAME)  # of today, and of transformers 4

if not sys.stderr.isatty():
    transformers_logging.disable_progress_bar()


def load(path: Path, version: Version, max_image_side: int, frames: FrameRule = FRAMES) -> Processor:
    """The processor saved at `path`, images limited to the area of `max_image_side` squared.

    `frames` chooses the one that stands for a file of several, which `Pixels` follows.

    The checkpoint's chat template is used where it has one that shows images, ours otherwise. An adapter that was
    saved without a processor has that of its base.
    """
    from workflow_scripts.models import loading

    if not Path(path).is_dir():  # transformers would look for it on the hub
        raise UserError(f"{path}: no such folder; download or train the model first")
    model = path if bases.is_model(path) else None  # a processor may stand alone
    if model:
        loading.check_version(model, version)
    if bases.is_adapter(path) and not any((Path(path) / name).is_file() for name in _CONFIGURATIONS):
        path = loading.base_of(path)
    try:
        loaded: Processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: has no processor ({brief(error)})") from error
    if model:
        _check_images(path, loaded, files.read_object(loading.base_of(model) / bases.CONFIG))
    if loaded.chat_template and not _shows_images(loaded):
        logger.warning("%s: its chat template cannot show an image; ours is taken", path)
        loaded.chat_template = None
    if not loaded.chat_template:
        loaded.chat_template = version.chat_template()
    size = loaded.image_processor.size
    # The family's `longest_edge` counts the pixels of two frames.
    largest = min(size["longest_edge"], 2 * max_image_side**2)
    loaded.image_processor.size = {
        "shortest_edge": min(size["shortest_edge"], largest),
        "longest_edge": largest,
    }
    loaded.image_processor.frames = frames
    if loaded.tokenizer.convert_tokens_to_ids(version.stop_token) in (None, loaded.tokenizer.unk_token_id):
        raise UserError(f"{path}: the tokenizer has no {version.stop_token}, which ends a trained answer")
    return loaded


def _check_images(path: Path, processor: Processor, config: dict[str, Any]) -> None:
    """A UserError where images are not made as the model with this `config` takes them: it would not see them as they are."""
    made, vision = processor.image_processor, config.get("vision_config", {})
    for name, ours, theirs in (
        ("image_token_id", processor.image_token_id, config.get("image_token_id")),
        ("patch_size", made.patch_size, vision.get("patch_size")),
        ("merge_size", made.merge_size, vision.get("spatial_merge_size")),
    ):
        if theirs not in (None, ours):  # a configuration may leave out what is usual
            raise UserError(
                f"{path}: {name} is {ours} for its processor and {theirs} for its model; save the processor of the model's "
                "own checkpoint there"
            )


def _shows_images(processor: Processor) -> bool:
    """Whether the chat template renders an image and a text, as parts of a message, as a prompt."""
    parts = [{"type": "image"}, {"type": "text", "text": "Where?"}]
    try:
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
    except Exception:  # a template is a program of someone else
        return False
    return prompt.count(processor.image_token) == 1 and "Where?" in prompt
