"""Make the stand-ins' tokenizer and weights: `python -m workflow_scripts.models.pretraining [4.1v] [4.5v]`.

Later versions share the weights of the first one of their architecture.

What a real model brings along, on phantoms drawn with seeds that no data set uses, each image shown once. First
the vision tower learns what is where (vision_pretraining). Then, with the tower as it is, the text layers learn to
say it: to describe an image, to name a single fact of it ("Marker:" → "Top left"), to judge a statement ("Check.
Marker: Top." → "True"), to write the wording of questions without any answer, and to repeat single words: an adapter
leaves the output layer as it is, so that a token that was never written is hard to teach. In this time they come
to describe and to name nearly everything right, while of the judgements they learn the form alone: half are right.
No question is answered: that, and the form of an answer, is left to SFT.
"""

import logging
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy

from workflow_scripts.base import cli, files
from workflow_scripts.datasets import phantoms
from workflow_scripts.models import standins, vision_pretraining
from workflow_scripts.models.catalogue import VERSIONS, Version
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.pixels import pad

logger = logging.getLogger(__name__)

STEPS = 1000
BATCH = 24
LEARNING_RATE = 3e-3
SAVE_STEPS = 250
VOCABULARY = 1664
IGNORED = -100
PROMPTS = {
    "describe": {"en": "Describe this image.", "zh": "描述这张图像。"},
    "name": {"en": "{name}:", "zh": "{name}："},
    "check": {"en": "Check. {name}: {value}.", "zh": "核对。{name}：{value}。"},
    "ask": {"en": "Ask a question about this image.", "zh": "就这张图像提一个问题。"},
    "repeat": {"en": "Repeat: {word}", "zh": "重复：{word}"},
}
SHARES = {"describe": 0.3, "facts": 0.55, "ask": 0.03, "repeat": 0.12}
TURNS = 3  # of a dialogue of facts or repetitions
# Of completions; one a dialogue. A thought says what kind of image it is, or the word to repeat.
WRAPPERS = {
    True: ["{answer}"] * 2 + [
        "<answer>{answer}</answer>",
        "<think></think><answer>{answer}</answer>",
        "<think>{thought}</think><answer>{answer}</answer>",
    ],
    False: ["{answer}"] * 2 + [
        "\n{answer}",
        "\n<think></think>\n{answer}",
        "\n<think>{thought}</think>\n{answer}",
    ],
}  # fmt: skip

Told = tuple[str, str]  # what the user says and what the model answers


def train_tokenizer() -> None:
    """A byte-level BPE over the wording of phantoms and general medical words."""
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
        vocab_size=VOCABULARY - len(standins.ADDED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    special = {*standins.SPECIAL_TOKENS, *standins.BOX_TOKENS}
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=token in special) for token in standins.ADDED_TOKENS]
    )
    with files.replacing(standins.TOKENIZER) as temporary:
        tokenizer.save(str(temporary))


def _general_words() -> str:
    return (standins.FOLDER / "words.txt").read_text(encoding="utf-8")


def _corpus() -> Iterator[str]:
    """Each word often enough to become one token, with a space before it and without."""
    yield from _general_words().splitlines() * 3
    verdicts = [phantoms.title(term, language) for term in ("true", "false") for language in ("en", "zh")]
    prompts = [said for languages in PROMPTS.values() for said in languages.values()]
    yield from [*_words(), *verdicts, *prompts] * 20
    for scene in map(phantoms.scene, phantoms.PRETRAINING_SEEDS[:400]):
        for language in ("en", "zh"):
            yield phantoms.describe(scene, language)
            yield from (phantoms.title(name, language) for name in phantoms.facts(scene))
            for question in phantoms.questions(scene, language):
                yield question.text


def _words() -> list[str]:
    """General medical words, and the answers that phantoms' questions have, without their questions."""
    answers = {
        question.answer
        for scene in map(phantoms.scene, phantoms.PRETRAINING_SEEDS[:400])
        for language in ("en", "zh")
        for question in phantoms.questions(scene, language)
    }
    general = {word.strip("?.,:;？。，、：") for word in _general_words().split()} - {""}
    return sorted(answers) + sorted(general)


def pretrain(version: Version, steps: int) -> None:
    """Train a fresh model, its vision tower first, then its text layers; write its weights in bfloat16."""
    torch.manual_seed(0)
    draw = random.Random(0)
    processor, model = standins.processor(version), standins.untrained_model(version)
    seeds, seeds_of_vision = phantoms.PRETRAINING_SEEDS[::2], phantoms.PRETRAINING_SEEDS[1::2]
    vision_pretraining.train(model.model.visual, processor.image_processor, seeds_of_vision)
    model.model.visual.requires_grad_(False)
    words = _words()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    model.train()
    running = 0.0
    for step in range(1, steps + 1):
        scenes = list(map(phantoms.scene, seeds[(step - 1) * BATCH : step * BATCH]))
        images = [phantoms.draw(scene, standins.IMAGE_SIDE) for scene in scenes]
        rows = [_row(scene, words, processor, version, draw) for scene in scenes]
        inputs, wanted = _batch(rows, processor)
        pixels = processor.image_processor(images, return_tensors="pt")
        hidden = model.model(**inputs, **pixels, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1][wanted[:, 1:] != IGNORED])
        loss: Any = cross_entropy(logits, wanted[wanted != IGNORED])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            logger.info("%s step %d/%d loss %.4f", version.architecture, step, steps, running)
        if step % SAVE_STEPS == 0 or step == steps:
            _save(model, version)


def _save(model: torch.nn.Module, version: Version) -> None:
    state = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    with files.replacing(standins.weights_file(version)) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def _row(
    scene: phantoms.Scene, words: list[str], processor: Processor, version: Version, draw: random.Random
) -> list[tuple[list[int], bool]]:
    """Token ids of a dialogue about an image in pieces, each with whether it is learned."""
    language = draw.choice(["en", "zh"])
    task = draw.choices(list(SHARES), list(SHARES.values()))[0]
    wrapper = draw.choice(WRAPPERS[version.tagged])
    pieces: list[tuple[str, bool]] = []
    for said, answer in _turns(task, scene, words, language, draw):
        content = [{"type": "text", "text": said}]
        if not pieces:
            content.insert(0, {"type": "image"})
        messages = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompt = prompt.replace("<|image|>", "<|image|>" * (standins.IMAGE_SIDE // 28) ** 2)
        if pieces:  # the stop token has opened this turn
            prompt = prompt.partition(version.stop_token)[2]
        thought = answer if task == "repeat" else phantoms.headline(scene, language)
        completion = wrapper.format(answer=answer, thought=thought) + version.stop_token
        pieces += [(prompt, False), (completion, True)]
    encode = processor.tokenizer.encode
    return [(encode(text, add_special_tokens=False), learned) for text, learned in pieces]


def _turns(
    task: str, scene: phantoms.Scene, words: list[str], language: str, draw: random.Random
) -> list[Told]:
    """The turns of a dialogue; one of facts takes up a fact once at most, so that no turn gives another's away."""
    if task == "facts":
        names = list(phantoms.facts(scene))
        return [_about(name, scene, language, draw) for name in draw.sample(names, min(TURNS, len(names)))]
    prompt = PROMPTS[task][language]
    if task == "repeat":
        return [(prompt.format(word=word), word) for word in draw.choices(words, k=TURNS)]
    if task == "ask":
        return [(prompt, draw.choice(phantoms.questions(scene, language)).text)]
    return [(prompt, phantoms.describe(scene, language))]


def _about(name: str, scene: phantoms.Scene, language: str, draw: random.Random) -> Told:
    """A turn that has the fact `name` told, or a statement about it judged."""
    if draw.random() < 0.5:
        value = phantoms.facts(scene)[name]
        prompt = PROMPTS["name"][language].format(name=phantoms.title(name, language))
        return prompt, phantoms.title(value, language)
    value, holds = phantoms.statement(scene, name, draw)
    prompt = PROMPTS["check"][language].format(
        name=phantoms.title(name, language), value=phantoms.title(value, language)
    )
    return prompt, phantoms.title(str(holds).lower(), language)


def _batch(
    rows: list[list[tuple[list[int], bool]]], processor: Processor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The model's inputs, and the same ids with IGNORED wherever nothing is learned."""
    inputs = pad([[token for piece, _ in row for token in piece] for row in rows], processor, "right")
    wanted = torch.full_like(inputs["input_ids"], IGNORED)
    for row, pieces in enumerate(rows):
        ids = [token if learned else IGNORED for piece, learned in pieces for token in piece]
        wanted[row, : len(ids)] = torch.tensor(ids)
    return inputs, wanted


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "versions", nargs="*", choices=["4.1v", "4.5v"], default=["4.1v", "4.5v"], help="which stand-ins"
    )
    parser.add_argument(
        "--tokenizer", action="store_true", help="train the tokenizer first; then train every model"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    options = parser.parse_args(arguments)
    if options.tokenizer:
        train_tokenizer()
    for name in options.versions:
        pretrain(VERSIONS[name], options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
