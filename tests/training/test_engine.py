"""The engine against stock TRL, its oracle: the same rows in the same order give the same losses and gradients."""

from contextlib import nullcontext
from copy import deepcopy
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from torch._dynamo.utils import counters
from transformers.integrations.flex_attention import WrappedFlexAttention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import dpo_trainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from benchmarks.common import StockOrder, kept_features
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data.collators import (
    IGNORED,
    REFERENCE_COLUMNS,
    PreferenceCollator,
    SftCollator,
)
from workflow_scripts.training.engine import forward
from workflow_scripts.training.engine.collation import TokenRow, Vocabulary, collate
from workflow_scripts.training.trainers import base
from workflow_scripts.training.trainers import dpo as dpo_module
from workflow_scripts.training.trainers.dpo import (
    SharedPrefixDPOTrainer,
    kept_reference,
    precomputes,
    save_reference,
)
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer

STEPS, MICRO, ACCUMULATION = 5, 4, 2


class StockSFT(StockOrder, SFTTrainer):
    pass


class StockDPO(StockOrder, DPOTrainer):
    pass


def arguments(folder, **changes) -> dict:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": MICRO,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "max_length": None,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "remove_unused_columns": False,
        "router_aux_loss_coef": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }


def in_order(rows: int, batches: int) -> list[list[int]]:
    line = [list(range(start, min(start + MICRO, rows))) for start in range(0, rows, MICRO)]
    return (line * batches)[:batches]


def losses(trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def lora(corpus):
    """An adapter on a model; peft changes the configuration that it is given."""
    return adapters.lora_config(model(corpus), Lora(rank=8, alpha=16, dropout=0.0))


def model(corpus):
    return standins.pretrained_model(VERSIONS[corpus.version])


def features(corpus, folder, dataset):
    return kept_features(folder, model(corpus), corpus.collator()["pixels"], dataset)


def stock_sft(corpus, folder, method="full"):
    stock = StockSFT(
        model(corpus),
        args=SFTConfig(**arguments(folder)),
        train_dataset=Dataset.from_list(corpus.sft()[1]),
        processing_class=corpus.processor,
        peft_config=lora(corpus) if method == "lora" else None,
    )
    stock.model_accepts_loss_kwargs = True  # as ours: over accumulation steps every token counts alike
    return stock


def sft(corpus, folder, method="full", cached=False, thought_weight=1.0, **changes):
    ours, _ = corpus.sft()
    return SharedPrefixSFTTrainer(
        model(corpus),
        args=SFTConfig(**arguments(folder, **changes), dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=ours,
        processing_class=corpus.processor,
        data_collator=SftCollator(
            **corpus.collator(), features=features(corpus, folder, ours) if cached else None
        ),
        peft_config=lora(corpus) if method == "lora" else None,
        planned=in_order(len(ours), STEPS * ACCUMULATION),
        validation=in_order(len(ours), 1),
        thought_weight=thought_weight,
    )


DPO = {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}


def stock_dpo(corpus, folder, method="full"):
    return StockDPO(
        model(corpus),
        ref_model=model(corpus) if method == "full" else None,
        args=DPOConfig(**arguments(folder), **DPO),
        train_dataset=Dataset.from_list(corpus.pairs()[1]),
        processing_class=corpus.processor,
        peft_config=lora(corpus) if method == "lora" else None,
    )


def dpo(corpus, folder, method="full", cached=False):
    ours, _ = corpus.pairs()
    return SharedPrefixDPOTrainer(
        model(corpus),
        args=DPOConfig(**arguments(folder), **DPO, precompute_ref_log_probs=precomputes(method)),
        train_dataset=ours,
        processing_class=corpus.processor,
        data_collator=PreferenceCollator(
            **corpus.collator(), features=features(corpus, folder, ours) if cached else None
        ),
        peft_config=lora(corpus) if method == "lora" else None,
        planned=in_order(len(ours), STEPS * ACCUMULATION),
        reference=folder / "reference.safetensors",
        passes=in_order(len(ours), -(-len(ours) // MICRO)),
    )


@pytest.fixture(scope="module")
def stock_losses(corpus, tmp_path_factory):
    """What stock comes to, by its trainer and method: trained once, for all ways of ours that must come to the same."""
    return cache(lambda stock, method: losses(stock(corpus, tmp_path_factory.mktemp("stock"), method)))


def gradients(trainer) -> torch.Tensor:
    """The gradient of the first batch, all parameters in one vector."""
    trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.compute_loss(trainer.model, batch).backward()
    named = sorted(trainer.model.named_parameters())
    return torch.cat([parameter.grad.flatten() for _, parameter in named if parameter.grad is not None])


def relative(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("full", {}),
        ("lora", {"activation_checkpointing": True, "cached": True}),
        pytest.param("full", {"activation_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param("lora", {"activation_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param("lora", {"cached": True}, marks=pytest.mark.slow),
        pytest.param("lora", {}, marks=pytest.mark.slow),
    ],
)
def test_sft_losses_equal_stock(corpus, stock_losses, tmp_path, method, changes):
    mine = sft(corpus, tmp_path, method, **changes)
    assert losses(mine) == pytest.approx(stock_losses(stock_sft, method), abs=1e-5)


@pytest.mark.parametrize(
    ("method", "cached"),
    [("full", False), ("lora", True), pytest.param("lora", False, marks=pytest.mark.slow)],
)
def test_dpo_losses_equal_stock(corpus, stock_losses, tmp_path, method, cached):
    mine = dpo(corpus, tmp_path, method, cached)
    assert losses(mine) == pytest.approx(stock_losses(stock_dpo, method), abs=1e-5)


@pytest.mark.parametrize(("ours", "stock"), [(sft, stock_sft), (dpo, stock_dpo)])
def test_gradients_equal_stock(corpus, tmp_path, ours, stock):
    assert relative(gradients(ours(corpus, tmp_path)), gradients(stock(corpus, tmp_path / "stock"))) < 1e-5


def test_no_weights_are_hashed_for_a_reference_below_an_adapter(corpus, tmp_path, monkeypatch):
    def refuse(model):
        raise AssertionError("hashed")

    monkeypatch.setattr(dpo_trainer, "hash_module", refuse)
    trainer = dpo(corpus, tmp_path, "lora")
    assert trainer.ref_model is None
    assert trainer.reference.is_file() and "ref_chosen_logps" in trainer.train_dataset.column_names
    with pytest.raises(AssertionError, match="hashed"):
        dpo(corpus, tmp_path, "full")


def test_a_reference_that_was_broken_off_goes_on(corpus, tmp_path, monkeypatch):
    whole = dpo(corpus, tmp_path / "whole")
    monkeypatch.setattr(dpo_module, "KEPT_BATCHES", 1)
    computes, asked = SharedPrefixDPOTrainer.compute_ref_log_probs, []

    def counts(self, model, inputs):
        if len(asked) == broken_off:
            raise KeyboardInterrupt
        asked.append(inputs)
        return computes(self, model, inputs)

    monkeypatch.setattr(SharedPrefixDPOTrainer, "compute_ref_log_probs", counts)
    broken_off = 2
    with pytest.raises(KeyboardInterrupt):
        dpo(corpus, tmp_path)
    kept = kept_reference(tmp_path / "reference.safetensors")
    known = ~kept["ref_chosen_logps"].isnan()
    assert known.tolist() == [row < 2 * MICRO for row in range(len(known))]

    broken_off, batches = None, len(whole.passes)
    resumed = dpo(corpus, tmp_path)
    assert len(asked) == batches
    assert resumed.reference.read_bytes() == whole.reference.read_bytes()
    assert resumed.train_dataset["ref_rejected_logps"] == whole.train_dataset["ref_rejected_logps"]


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: content[:-1] + b"\1"])
def test_a_damaged_reference_is_none(tmp_path, caplog, damage):
    file, values = tmp_path / "reference.safetensors", {name: torch.rand(5) for name in REFERENCE_COLUMNS}
    save_reference(file, values)
    assert kept_reference(file).keys() == values.keys()
    file.write_bytes(damage(file.read_bytes()))
    assert kept_reference(file) is None and f"{file} is damaged" in caplog.text


def test_under_autocast_no_bit_depends_on_pefts_casts(corpus, tmp_path, monkeypatch):
    def train(folder: str) -> tuple[list[float], torch.Tensor, set[bool]]:
        torch.manual_seed(0)
        trainer = sft(corpus, tmp_path / folder, "lora", bf16=True, max_steps=2)
        adapted = [module for module in trainer.model.modules() if isinstance(module, BaseTunerLayer)]
        casts = set()
        adapted[0].register_forward_pre_hook(lambda *_: casts.add(adapted[0].cast_input_dtype_enabled))
        found = losses(trainer)
        assert all(module.cast_input_dtype_enabled for module in adapted)
        trained = [value.flatten() for value in trainer.model.parameters() if value.requires_grad]
        return found, torch.cat(trained), casts

    found, weights, casts = train("ours")
    monkeypatch.setattr(base, "disable_input_dtype_casting", lambda *_, **__: nullcontext())
    true, true_weights, true_casts = train("peft")
    assert (casts, true_casts) == ({False}, {True})
    assert found == true and torch.equal(weights, true_weights)


def plain_weighted_loss(corpus, trained, rows: list[dict], weight: float) -> torch.Tensor:
    """By the formula, on stock's rows one by one: the mean over all tokens, those up to </think> by `weight`."""
    collate = DataCollatorForVisionLanguageModeling(corpus.processor, completion_only_loss=True)
    end = corpus.processor.tokenizer.convert_tokens_to_ids("</think>")
    total = weights = 0.0
    for row in rows:
        batch = collate([deepcopy(row)])
        (labels,) = batch.pop("labels")
        batch["pixel_values"] = batch["pixel_values"].double()
        (completion,) = torch.nonzero(labels != IGNORED, as_tuple=True)
        wanted = labels[completion]
        chances = trained(**batch).logits[0, completion - 1].log_softmax(-1)
        thought = range(wanted.tolist().index(end) + 1) if end in wanted else ()
        weight_of = torch.tensor([weight if place in thought else 1 for place in range(len(wanted))])
        total -= (weight_of * chances[range(len(wanted)), wanted]).sum()
        weights += weight_of.sum()
    return total / weights


def test_the_weighted_loss_is_that_of_a_plain_implementation(corpus, tmp_path):
    """Of a step of several batches, whose weights differ, and of a validation; the reference in float64."""
    mine = sft(corpus, tmp_path, thought_weight=0.2)
    stock_rows = corpus.sft()[1]
    plain = model(corpus).double()
    plain.set_experts_implementation("eager")  # the others take no float64
    expected = plain_weighted_loss(corpus, plain, stock_rows[: MICRO * ACCUMULATION], 0.2)
    expected.backward()

    mine.model.train()
    batches, weights = mine.get_batch_samples(iter(mine.get_train_dataloader()), ACCUMULATION, "cpu")
    parts = [
        mine.compute_loss(mine.model, mine._prepare_inputs(batch), num_items_in_batch=weights)
        for batch in batches
    ]
    sum(parts).backward()
    assert sum(parts).item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (
        torch.cat(
            [
                value.grad.double().flatten()
                for _, value in sorted(trained.named_parameters())
                if value.grad is not None
            ]
        )
        for trained in (mine.model, plain)
    )
    assert relative(ours, theirs) < 1e-5

    mine.model.eval()
    loss, _, _ = mine.prediction_step(
        mine.model, next(iter(mine.get_eval_dataloader())), prediction_loss_only=True
    )
    with torch.no_grad():
        assert float(loss) == pytest.approx(
            float(plain_weighted_loss(corpus, plain.eval(), stock_rows[:MICRO], 0.2)), rel=1e-6
        )


def test_a_wrong_mask_is_noticed(corpus, tmp_path, monkeypatch):
    """Were the questions to see each other, the comparison above would fail."""
    causal = forward.attention_mask
    monkeypatch.setattr(
        forward, "attention_mask", lambda ends, kind: causal(torch.full_like(ends, ends.shape[1]), kind)
    )
    mine, stock = sft(corpus, tmp_path), stock_sft(corpus, tmp_path / "stock")
    assert relative(gradients(mine), gradients(stock)) > 1e-2


@torch.no_grad()
def test_a_batch_comes_to_what_its_rows_come_to_alone(corpus):
    """Without an image, with one twice, with two in either order, with an answer of one token."""
    first, second, *_ = (str(corpus.folder / f"{number}.png") for number in range(3))
    question = corpus.dialogue.tokens("is there a nodule")
    image = corpus.processor.image_token_id
    rows = [
        {
            "prompt_ids": [image] * len(shown) + question,
            "completion_ids": answer,
            "image_paths": shown,
            "thought_tokens": 0,
        }
        for shown in ([], [first], [first, first], [first, second], [second, first])
        for answer in ([question[-1]], question)
    ]
    collate, trained = SftCollator(**corpus.collator()), model(corpus)
    forward.share_prefixes(trained.model)

    def hidden(*batch: dict) -> list[torch.Tensor]:
        inputs = collate(list(batch))
        labels = inputs.pop("labels")
        states = trained.model(**inputs).last_hidden_state
        # A token is predicted where the one before it stands.
        return [row[:-1][kept[1:]] for row, kept in zip(states, labels != IGNORED, strict=True)]

    for row, together in zip(rows, hidden(*rows), strict=True):
        assert relative(together, *hidden(row)) < 1e-5


@torch.no_grad()
def test_flex_attention_comes_to_the_same(corpus):
    """As on a GPU, all trees in one sequence; on a CPU flex attention runs uncompiled and forward only."""

    def hidden(device: str) -> torch.Tensor:
        trained = model(corpus)
        one_sequence = loading.use_tree_attention(trained, torch.device(device))
        forward.share_prefixes(trained.model)
        batch = SftCollator(**corpus.collator(), one_sequence=one_sequence)(list(corpus.sft()[0]))
        predicted = batch.pop("labels")[:, 1:] != IGNORED
        with torch.compiler.set_stance("force_eager"):
            return trained.model(**batch).last_hidden_state[:, :-1][predicted]

    assert relative(hidden("cuda"), hidden("cpu")) < 1e-6


@pytest.mark.slow
def test_in_bf16_it_differs_from_stock_no_more_than_stock_from_itself(corpus):
    """Gradients over the same rows: as one tree batch, and by stock in one batch or row by row."""
    ours, stock_rows = corpus.sft()
    collate = DataCollatorForVisionLanguageModeling(corpus.processor, completion_only_loss=True)

    def gradient(*batches: dict) -> torch.Tensor:
        half = model(corpus).bfloat16()
        add_fused_lm_head(half)
        forward.share_prefixes(half.model)
        for batch in batches:
            (-half(**batch, fused_lm_head=True).log_probs.sum()).backward()
        named = sorted(half.named_parameters())
        return torch.cat([each.grad.float().flatten() for _, each in named if each.grad is not None])

    together = gradient(collate(deepcopy(stock_rows)))
    alone = gradient(*(collate([deepcopy(row)]) for row in stock_rows))
    shared = gradient(SftCollator(**corpus.collator())(list(ours)))
    assert 0 < relative(shared, together) <= relative(alone, together)


def test_gradients_of_shared_places_are_summed_in_one_order():
    """With several threads, as on a busy machine, every try comes to the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        hidden = torch.randn(600, 128, requires_grad=True)
        places, weights = torch.randint(0, 60, (80, 50)), torch.randn(80, 50, 128)
        sums = set()
        for _ in range(200):
            hidden.grad = None
            (forward.gathered(hidden, places) * weights).sum().backward()
            sums.add(hidden.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(sums) == 1


@pytest.mark.slow
@torch.no_grad()
def test_batches_of_any_length_are_compiled_once_and_once_more(monkeypatch):
    """As flex attention is called on a GPU: for the first length, then for all others; also for the shortest."""
    attend = ALL_ATTENTION_FUNCTIONS["flex_attention"]
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", partial(compiled, backend="eager"))
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", False)
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    words = Vocabulary(image_token=1, pad_token=0, merge_size=2, one_sequence=True)
    lengths = set()
    for questions in (9, 1, 30, 17, 4, 50):
        rows = [TokenRow([2, 3 + number], list(range(2, 22)), []) for number in range(questions)]
        ends = collate(rows, [], words)["tree"]["ends"]
        lengths.add(ends.shape[1])
        query, key, value = (torch.randn(1, heads, ends.shape[1], 16) for heads in (4, 2, 2))
        layer = SimpleNamespace(training=True)
        attend(layer, query, key, value, forward.attention_mask(ends, "flex_attention"), scaling=0.25)
    torch.compiler.reset()
    assert len(lengths) >= 4
    assert counters["stats"]["unique_graphs"] - before == 2
