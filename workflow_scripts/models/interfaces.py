"""What this package uses of a checkpoint's processor, as types: transformers leaves most of it unannotated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Tokenizer(Protocol):
    """From text to token ids and back."""

    pad_token_id: int
    eos_token_id: int
    unk_token_id: int | None

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = ...,
        return_offsets_mapping: bool = ...,
    ) -> Mapping[str, Any]: ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...


class ImageProcessor(Protocol):
    """From images to patches; `size` limits the pixels of two frames, the family's still image."""

    size: Any
    patch_size: int
    merge_size: int
    image_mean: list[float]
    image_std: list[float]
    frames: FrameRule  # which `processors.load` adds

    def __call__(
        self, images: "Sequence[Image.Image]", *, return_tensors: str
    ) -> "Mapping[str, torch.Tensor]":
        """pixel_values [patches of all images, values of a patch] and image_grid_thw [images, 3]."""
        ...

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: dict[str, Any]) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...

    def save_pretrained(self, save_directory: Path) -> object: ...


def frame_rule(image_processor: ImageProcessor) -> FrameRule:
    """Which frame stands for a file of several: what `processors.load` was told, else the default."""
    rule: FrameRule = getattr(image_processor, "frames", FRAMES)
    return rule


class Processor(Protocol):
    """A checkpoint's tokenizer, image processor and chat template together."""

    tokenizer: Tokenizer
    image_processor: ImageProcessor
    chat_template: str | None
    image_token: str
    image_token_id: int

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
        **template_options: Any,
    ) -> str: ...

    def create_mm_token_type_ids(self, input_ids: list[list[int]]) -> list[list[int]]: ...

    def save_pretrained(self, save_directory: Path) -> object: ...
