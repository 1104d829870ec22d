"""A GPU computes while the host goes on; where the host reads a value, it waits until that is computed.

Readings are counted on the CPU. What reads nothing at all also runs on tensors of a GPU that have no values.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
import trl
from test_engine import dpo, features, model, sft
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

import workflow_scripts
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.evaluation.generation.cache import cache_of, prefill
from workflow_scripts.evaluation.generation.sampling import likeliest
from workflow_scripts.models import pixels, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training import arguments
from workflow_scripts.training import model as trained_model
from workflow_scripts.training.data.batching import Load
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.engine.attention import FLEX_BLOCK, attention_mask
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.engine.vision import image_features

aten = torch.ops.aten
READING = (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal)
COPYING = (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy)
OURS, TRL, TRANSFORMERS = (
    str(Path(package.__file__).parent) for package in (workflow_scripts, trl, transformers)
)


def asking() -> str:
    """The file that asks for what torch is doing."""
    frame = sys._getframe(2)
    while (name := frame.f_code.co_filename) == __file__ or f"{Path(torch.__file__).parent}/" in name:
        frame = frame.f_back
    return name


class Operations(TorchDispatchMode):
    """Counts operations that a GPU must have come to before the host goes on, by who asks for them."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket
        by_mask = name in (aten.index, aten.index_put, aten.index_put_) and any(
            places is not None and places.dtype == torch.bool for places in args[1]
        )
        if name in READING or by_mask or operation is aten.repeat_interleave.Tensor:
            self.found[asking()] += 1
        return operation(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts what copies a tensor to the host as a whole."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in COPYING:
            self.found[asking()] += 1
        return function(*args, **(kwargs or {}))


class Transfers(TorchDispatchMode):
    """Which copies to another device wait."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation is aten._to_copy.default:
            self.waiting.append(not kwargs.get("non_blocking"))
        return operation(*args, **kwargs)


class Steps(TrainerCallback):
    """The readings of each optimiser step; its batches were made before."""

    def __init__(self):
        self.found = []

    def on_step_begin(self, *args, **kwargs):
        self.found.append(Counter())
        self.modes = [Copies(self.found[-1]), Operations(self.found[-1])]
        for mode in self.modes:
            mode.__enter__()

    def on_step_end(self, *args, **kwargs):
        for mode in reversed(self.modes):
            mode.__exit__(None, None, None)


def readings(trainer) -> Counter:
    """Of the second step, by package."""
    steps = Steps()
    trainer.add_callback(steps)
    trainer.args.max_steps, trainer.args.logging_nan_inf_filter = 2, False
    trainer.train()
    found = Counter()
    for file, count in steps.found[1].items():
        found[next((name for name in (OURS, TRL, TRANSFORMERS) if file.startswith(name)), file)] += count
    return found


@pytest.mark.parametrize("make", [sft, dpo])
def test_a_step_reads_its_losses_and_its_norm(corpus, tmp_path, make):
    """Once for all of its passes; beside these TRL's metrics wait alone, and nothing within the model does."""
    trainer = make(corpus, tmp_path, "lora", cached=True)
    assert trainer.args.gradient_accumulation_steps > 1 and trainer.args.optim == "adamw_torch_fused"
    found = readings(trainer)
    assert found[OURS] == 2 and found[TRL] > 0 and found[TRANSFORMERS] == 0


def test_a_batch_is_copied_while_the_host_goes_on(corpus, tmp_path, monkeypatch):
    trainer = sft(corpus, tmp_path, "lora", cached=True)
    batch = next(iter(trainer.get_train_dataloader()))
    monkeypatch.setattr(type(trainer.args), "device", torch.device("meta"))
    with Transfers() as transfers:
        moved = trainer._prepare_input(batch)
    assert (
        moved["tree"]["image_features"].is_meta
        and moved["tree"]["image_sizes"] == batch["tree"]["image_sizes"]
    )
    assert transfers.waiting == [False] * len(transfers.waiting) and len(transfers.waiting) >= 8


def test_on_a_gpu_workers_make_batches_ahead_in_pinned_memory(tmp_path):
    standins.save(VERSIONS["4.1v"], "base", tmp_path)
    begun = trained_model.start(tmp_path, Sft(gpus=0))
    schedule = Schedule(1, [[0]], 1, [[0]], [], [Load(1)], [1], Load(1))
    given = arguments.shared(Sft(gpus=0), replace(begun, device=torch.device("cuda")), tmp_path, 1, schedule)
    assert given["dataloader_num_workers"] == 2 and given["dataloader_pin_memory"]
    assert "optim" not in given  # the trainer's own, which is fused


class OnGpu:
    """Tensors on a GPU that is not there: they have shapes and no values, and to read one is an error."""

    def __init__(self):
        self.mode = FakeTensorMode()

    def moved(self, value):
        """The same on that GPU, for tensors alone or in a dictionary; what is no tensor stays."""
        if isinstance(value, dict):
            return {name: self.moved(part) for name, part in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        fake = self.mode.from_tensor(value.detach())
        with self.mode:
            return fake.to("cuda")

    def move(self, model):
        """Put the parameters and buffers of `model` there."""
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    moved = self.moved(value)
                    with self.mode:
                        module._parameters[name] = torch.nn.Parameter(moved, value.requires_grad)
            module._buffers.update({name: self.moved(value) for name, value in module._buffers.items()})
        return model


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    return OnGpu()


def test_the_forward_of_a_tree_reads_nothing(corpus, tmp_path, gpu):
    rows, _ = corpus.sft()
    bare, kept = model(corpus), features(corpus, tmp_path, rows)
    batch = SftCollator(**corpus.collator(), features=kept)([rows[number] for number in range(4)])
    share_prefixes(bare.model)
    gpu.move(bare)
    tree = gpu.moved(batch["tree"])
    with gpu.mode, torch.no_grad():
        hidden = bare.model(tree=tree, use_cache=False).last_hidden_state
    assert hidden.device.type == "cuda" and hidden.shape[:2] == batch["input_ids"].shape


def known_on_the_host(monkeypatch, grids: torch.Tensor) -> None:
    """Let tensors without values that lie on the host be read, where they are those of the tower's `grids`."""
    lengths = (grids[:, 1] * grids[:, 2]).int()  # of what the blocks attend within
    merge = torch.full((len(grids),), 2)
    values = {(known.shape, known.dtype): known.tolist() for known in (grids, lengths, merge)}

    def read(tensor):
        if tensor.device.type == "cpu":
            return values[tensor.shape, tensor.dtype]
        raise DataDependentOutputException(torch.Tensor.tolist)

    monkeypatch.setattr(FakeTensor, "tolist", read)


def test_the_tower_reads_nothing_and_computes_what_transformers_has(corpus, gpu, monkeypatch):
    bare = model(corpus)
    shown = [corpus.collator()["pixels"](str(corpus.folder / f"{number}.png")) for number in range(3)]
    patches, grids = torch.cat([values for values, _ in shown]), torch.stack([grid for _, grid in shown])
    with torch.no_grad():
        found = image_features(bare.model, patches, grids.tolist())
        true = bare.model.get_image_features(patches, grids).pooler_output
    assert len({len(features) for features in true}) > 1
    assert all(mine.equal(theirs) for mine, theirs in zip(found, true, strict=True))
    gpu.move(bare)
    there, theirs = gpu.moved(patches), gpu.moved(grids)
    known_on_the_host(monkeypatch, grids)
    with gpu.mode, torch.no_grad():
        assert [part.shape for part in image_features(bare.model, there, grids.tolist())] == [
            part.shape for part in true
        ]
        with pytest.raises(DataDependentOutputException):
            bare.model.get_image_features(there, theirs)


@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_masks_are_made_where_the_tree_is(gpu, implementation):
    ends = gpu.moved(torch.arange(1, 2 * FLEX_BLOCK + 1)[None])
    with gpu.mode:
        mask = attention_mask(ends, implementation)
    assert (mask if implementation == "sdpa" else mask.kv_indices).device.type == "cuda"


def test_a_token_that_is_written_reads_nothing_but_itself(corpus, gpu):
    asked = model(corpus).eval()
    ids = corpus.dialogue.tokens("is there a nodule")
    batch = prefill(asked, pixels.batch([(ids, []), (ids[:2], [])], corpus.processor, None))
    gpu.move(asked)
    layers = [[gpu.moved(part) for part in layer.shown] for layer in batch.layers]
    parts = {name: gpu.moved(getattr(batch, name)) for name in ("mask", "positions", "logits")}
    with gpu.mode:
        there = replace(batch, cache=cache_of(layers, batch.columns), **parts)
        there.write(asked, [1, 2])
        assert there.logits.device.type == "cuda" and there.columns == batch.columns + 1
        with pytest.raises(DataDependentOutputException):
            likeliest(there.logits)
