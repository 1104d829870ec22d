"""Make the stand-ins' tokenizer and weights: `python -m workflow_scripts.models.pretraining [4.1v] [4.5v]`.

The models learn to describe phantoms drawn with seeds that no data set uses, the wording of questions without
any answer, and to repeat single words, all of it in the formats of the family: an adapter leaves the output layer
as it is, so that a token that was never written is hard to teach. About twenty minutes a model on one CPU core.
"""

import logging
import random
import sys
from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from workflow_scripts.base import cli, files
from workflow_scripts.datasets import phantoms
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS, Version
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.pixels import pad

logger = logging.getLogger(__name__)

SCENES = 4000
STEPS = 4000
BATCH = 24
LEARNING_RATE = 2e-3
VOCABULARY = 1536
PROMPTS = {
    "describe": {"en": "Describe this image.", "zh": "描述这张图像。"},
    "ask": {"en": "Ask a question about this image.", "zh": "就这张图像提一个问题。"},
    "repeat": {"en": "Repeat: ", "zh": "重复："},
}
SHARES = {"describe": 0.65, "ask": 0.1, "repeat": 0.25}
WRAPPERS = [
    "{}",
    "<answer>{}</answer>",
    "<think></think><answer>{}</answer>",
    "<think>{}</think><answer>{}</answer>",
]


def train_tokenizer() -> None:
    """A byte-level BPE over the wording of phantoms and general medical words."""
    general = (standins.FOLDER / "words.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[\u4e00-\u9fff]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=standins.SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_wording(), *general * 3], trainer)
    tokenizer.add_tokens(standins.MARKUP_TOKENS)
    with files.replacing(standins.FOLDER / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))


def _wording() -> Iterator[str]:
    for scene in _scenes(400):
        for language in ("en", "zh"):
            yield phantoms.describe(scene, language)
            for question in phantoms.questions(scene, language):
                yield question.text


def _scenes(count: int) -> list[phantoms.Scene]:
    return [phantoms.scene(phantoms.PRETRAINING_SEEDS[index]) for index in range(count)]


def _words(scenes: list[phantoms.Scene]) -> list[str]:
    """General medical words, and the answers that phantoms' questions have, without their questions."""
    general = (standins.FOLDER / "words.txt").read_text(encoding="utf-8")
    answers = {
        question.answer
        for scene in scenes[:400]
        for language in ("en", "zh")
        for question in phantoms.questions(scene, language)
    }
    return sorted(answers) + sorted({word.strip("?.,:;？。，、：") for word in general.split()} - {""})


def pretrain(version: Version) -> None:
    """Train a fresh model on descriptions and question wordings, then write its weights in bfloat16."""
    torch.manual_seed(0)
    draw = random.Random(0)
    processor, model = standins.processor(version), standins.untrained_model(version)
    scenes = _scenes(SCENES)
    images = [phantoms.draw(scene, standins.IMAGE_SIDE) for scene in scenes]
    pixels = processor.image_processor(images, return_tensors="pt")
    patches = pixels["pixel_values"].reshape(len(scenes), -1, pixels["pixel_values"].shape[-1])
    grid = pixels["image_grid_thw"][:1]
    words = _words(scenes)

    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.05
    )
    model.train()
    running = 0.0
    for step in range(1, STEPS + 1):
        chosen = [draw.randrange(len(scenes)) for _ in range(BATCH)]
        rows = [_row(scenes[index], words, processor, version.stop_token, draw) for index in chosen]
        batch = _batch(rows, processor)
        loss = model(
            **batch,
            pixel_values=patches[chosen].flatten(0, 1),
            image_grid_thw=grid.expand(BATCH, -1),
            use_cache=False,
        ).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running = loss.item() if step == 1 else 0.99 * running + 0.01 * loss.item()
        if step % 100 == 0:
            logger.info("%s step %d/%d loss %.4f", version.architecture, step, STEPS, running)
    state = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    with files.replacing(standins.weights_file(version)) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def _row(
    scene: phantoms.Scene, words: list[str], processor: Processor, stop: str, draw: random.Random
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of its completion, for one of the three tasks."""
    language = draw.choice(["en", "zh"])
    task = draw.choices(list(SHARES), list(SHARES.values()))[0]
    prompt = PROMPTS[task][language]
    if task == "describe":
        text = phantoms.describe(scene, language)
    elif task == "ask":
        text = draw.choice(phantoms.questions(scene, language)).text
    else:
        text = draw.choice(words)
        prompt += text
    text = draw.choice(WRAPPERS).format(text, text)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    rendered = rendered.replace("<|image|>", "<|image|>" * (standins.IMAGE_SIDE // 28) ** 2)
    encode = processor.tokenizer.encode
    return encode(rendered, add_special_tokens=False), encode(text + stop, add_special_tokens=False)


def _batch(rows: list[tuple[list[int], list[int]]], processor: Processor) -> dict[str, torch.Tensor]:
    inputs = pad([prompt + completion for prompt, completion in rows], processor, "right")
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, (prompt, completion) in enumerate(rows):
        labels[row, len(prompt) : len(prompt) + len(completion)] = torch.tensor(completion)
    return {**inputs, "labels": labels}


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "versions", nargs="*", choices=list(VERSIONS), default=list(VERSIONS), help="which stand-ins"
    )
    parser.add_argument(
        "--tokenizer", action="store_true", help="train the tokenizer first; then train every model"
    )
    options = parser.parse_args(arguments)
    if options.tokenizer:
        train_tokenizer()
    for name in options.versions:
        pretrain(VERSIONS[name])
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
