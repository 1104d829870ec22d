"""Each part of the model trains at its own rate, and every trainable parameter exactly once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.precision_config import get_bfloat16_config
from peft import get_peft_model
from trl import SFTConfig

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Dpo, Lora, LossWeights, Sft
from workflow_scripts.models import adapters, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.training import model as trained_model
from workflow_scripts.training.data.batching import Load
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.data.schedule import Schedule
from workflow_scripts.training.engine.forward import share_prefixes
from workflow_scripts.training.strategies import STRATEGIES, deepspeed_config
from workflow_scripts.training.trainers.base import parameter_groups
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer, objective

RATES = {"merger": 3e-4, "vision": 1e-5}


def built(corpus, folder, method: str, quantized: bool = False) -> SharedPrefixSFTTrainer:
    model = standins.pretrained_model(VERSIONS[corpus.version])
    if quantized:  # as TRL sees it
        model.is_loaded_in_4bit = True
    lora = adapters.lora_config(model, Lora(rank=2, dropout=0.0, vision=True)) if method == "lora" else None
    ours, _ = corpus.sft()
    return SharedPrefixSFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(folder),
            learning_rate=1e-3,
            weight_decay=0.1,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=True,
            max_length=None,
            remove_unused_columns=False,
            router_aux_loss_coef=0.0,
            report_to="none",
            save_strategy="no",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=ours,
        processing_class=corpus.processor,
        data_collator=SftCollator(**corpus.collator()),
        peft_config=lora,
        planned=[[0, 1]] * 2,
        part_rates=RATES,
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_parts_have_their_own_rates(corpus, tmp_path, method):
    mine = built(corpus, tmp_path, method)
    mine.create_optimizer()
    groups = mine.optimizer.param_groups
    assert groups[0]["lr"] == 1e-3  # the one that is logged
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    trainable = {name: value for name, value in mine.model.named_parameters() if value.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(rate) == len(trainable)
    for name, parameter in trainable.items():
        expected = RATES["merger"] if ".merger." in name else RATES["vision"] if ".visual." in name else 1e-3
        assert rate[id(parameter)] == expected, name
    assert {group["lr"] for group in groups} == {1e-3, *RATES.values()}


def test_adapters_train_in_fp32_where_trl_would_round_them(corpus, tmp_path):
    mine = built(corpus, tmp_path, "lora", quantized=True)
    assert {value.dtype for value in mine.model.parameters() if value.requires_grad} == {torch.float32}


def test_weight_decay_is_where_trainer_has_it(corpus, tmp_path):
    mine = built(corpus, tmp_path, "full")
    mine.create_optimizer()
    decayed = mine.get_decay_parameter_names(mine.model)
    decay = {
        id(parameter): group["weight_decay"]
        for group in mine.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in mine.model.named_parameters():
        assert decay[id(parameter)] == (0.1 if name in decayed else 0.0), name


def test_training_moves_each_part_by_its_rate(corpus, tmp_path):
    """AdamW's first step moves a parameter by about its rate."""
    mine = built(corpus, tmp_path, "full")
    mine.args.lr_scheduler_type, mine.args.max_steps = "constant", 1
    mine.args.weight_decay = 0.0
    before = {name: value.detach().clone() for name, value in mine.model.named_parameters()}
    mine.train()
    moved = {"language model": 0.0, "merger": 0.0, "vision": 0.0}
    for name, parameter in mine.model.named_parameters():
        part = "merger" if ".merger." in name else "vision" if ".visual." in name else "language model"
        moved[part] = max(moved[part], float((parameter.detach() - before[name]).abs().max()))
    assert moved == pytest.approx({"language model": 1e-3, **RATES}, rel=0.05)


def test_the_best_model_is_loaded_whole(corpus, tmp_path):
    mine = built(corpus, tmp_path, "full")
    best = {name: value.clone() for name, value in mine.model.state_dict().items()}
    mine.save_model(str(tmp_path / "best"))
    mine.model.load_state_dict({name: value + 1 for name, value in best.items()})
    mine.state.best_model_checkpoint = str(tmp_path / "best")
    mine._load_best_model()
    assert all(value.equal(best[name]) for name, value in mine.model.state_dict().items())


@pytest.mark.parametrize("reentrant", [False, True])
def test_an_adapter_on_the_tower_gets_gradients_under_either_checkpointing(corpus, tmp_path, reentrant):
    """TRL takes the reentrant one under ZeRO-3."""
    standins.save(VERSIONS[corpus.version], "thinking", tmp_path)
    settings = Sft(gpus=0, lora=Lora(rank=2, dropout=0.0, vision=True))
    model, lora = trained_model.load(trained_model.start(tmp_path, settings), settings)
    adapted = get_peft_model(model, lora)
    adapted.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    share_prefixes(model.model)
    batch = SftCollator(**corpus.collator())(list(corpus.sft()[0]))
    batch.pop("labels")
    model.train()
    model.model(**batch).last_hidden_state.square().mean().backward()
    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert any(".visual.blocks." in name for name in trained)
    assert [name for name, value in trained.items() if value.grad is None] == []


def test_groups_without_rates_are_those_of_trainer():
    model = get_peft_model(
        (base := standins.untrained_model(VERSIONS["4.1v"])), adapters.lora_config(base, Lora(rank=2))
    )
    (group,) = parameter_groups(model, [name for name, _ in model.named_parameters()], 0.1, {})
    assert "lr" not in group and len(group["params"]) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"method": "lora", "vision_learning_rate": 1e-5}, "lora.vision: true"),
        ({"method": "full", "merger_learning_rate": 1e-5}, "freeze_vision: false"),
    ],
)
def test_a_rate_of_a_frozen_part_is_refused(settings, key):
    with pytest.raises(UserError, match=f"frozen; set {key}"):
        trained_model.start(Path("model"), Sft(**settings))


def test_further_keys_reach_trl_and_peft(corpus, tmp_path):
    standins.save(VERSIONS[corpus.version], "thinking", tmp_path / "model")
    settings = Sft(
        gpus=0, trainer={"max_grad_norm": 0.25}, lora=Lora(rank=4, dropout=0.0, peft={"use_rslora": True})
    )
    begun = trained_model.start(tmp_path / "model", settings)
    schedule = Schedule(1, [[0]], 1, [[0]], [], [Load(1)], [1], Load(1))
    assert (
        objective(settings.loss_weights).arguments(settings, begun, tmp_path, 1, schedule).max_grad_norm
        == 0.25
    )
    _, lora = trained_model.load(begun, settings)
    assert lora is not None and lora.use_rslora


@pytest.mark.parametrize(
    ("strategy", "precision", "dtype"),
    [
        ("ddp", "bf16", torch.float32),
        ("fsdp", "bf16", torch.float32),
        ("zero1", "bf16", torch.bfloat16),
        ("zero2", "bf16", torch.bfloat16),
        ("zero2", "fp32", torch.float32),
    ],
)
def test_deepspeed_is_given_no_second_copy_in_fp32(tmp_path, strategy, precision, dtype):
    """It keeps one of its own, divided among the processes; the checkpoint's weights are in bf16 anyway."""
    standins.save(VERSIONS["4.1v"], "base", tmp_path / "model")
    settings = Sft(method="full", strategy=strategy, precision=precision, gpus=0)
    model, _ = trained_model.load(trained_model.start(tmp_path / "model", settings), settings)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("strategy", [one for one in STRATEGIES.values() if one.library == "deepspeed"])
def test_deepspeed_steps_on_copies_in_fp32(strategy):
    config = deepspeed_config(strategy)
    config["bf16"]["enabled"] = True
    assert not get_bfloat16_config(config).bf16_master_weights_and_grads


def test_loss_weights_reach_the_loss_and_only_their_ratio_counts(workplace):
    def loss(**weights: float) -> float:
        own = workplace.settings.sft.model_copy(
            update={"loss_weights": LossWeights(**weights), "max_steps": 1}
        )
        settings = workplace.settings.model_copy(update={"sft": own})
        return sft(settings, workplace.layout, workplace.run, workplace.model)["final_loss"]

    assert loss(thought=0.2, answer=1) == loss(thought=1, answer=5) != loss(thought=1, answer=1)


def test_what_fsdp_cannot_divide_is_refused(tmp_path):
    standins.save(VERSIONS["4.5v"], "thinking", tmp_path / "experts")
    settings = Sft(strategy="fsdp", gpus=0)
    with pytest.raises(UserError, match="routers have buffers.*zero3"):
        trained_model.start(tmp_path / "experts", settings)


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_an_adapter_is_not_merged_into_divided_weights(workplace, strategy):
    """Under FSDP the reference of DPO would be the adapter's base, silently."""
    settings = Dpo(method="full", strategy=strategy, gpus=0)
    begun = replace(trained_model.start(workplace.model, settings), is_adapter=True)
    with pytest.raises(UserError, match="merged into weights that processes divide"):
        trained_model.load(begun, settings)
