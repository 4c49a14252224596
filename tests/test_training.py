"""Batches, gradients, the trainer's settings, and whole runs of both phases with the tiny model."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from text2sql import data, model, prompts, runs, training
from text2sql.config import BadRow, Trainer
from text2sql.tracking import Tracker

pytestmark = pytest.mark.usefixtures("one_thread")

NO_TRACKER = Tracker("none", Path(), {})


@pytest.fixture(scope="module")
def tokenizer(small):
    return model.load_tokenizer(small("phase=1").model)


def tokens(config, tokenizer, split="train"):
    return training.Tokens.of(data.load(config.data, split, seed=config.seed).examples, tokenizer, config)


def adapted_at_random(config):
    """The base with an adapter whose B is not zero, so that every LoRA matrix has a gradient."""
    torch.manual_seed(0)
    adapted = model.new_adapter(model.load_base(config), config.lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return adapted


def trainable(network):
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


# The gradient of one optimizer step

ONE_STEP = (
    "phase=1",
    "data.max_samples=16",
    "prompt.max_sql_tokens=200",
    "trainer.batch_size=16",
    "trainer.max_steps=1",
    "trainer.optim=sgd",
    "trainer.max_grad_norm=1e9",
    "lora.lora_dropout=0.0",
    "eval.num_live_samples=0",
)


class Gradients(TrainerCallback):
    """Keeps the gradients as the optimizer finds them."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.found = {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def one_by_one(config, tokenizer):
    """Loss and gradients of all training examples, accumulated over single unpadded rows and full logits."""
    examples, adapted = tokens(config, tokenizer), adapted_at_random(config).train()
    num_learned = sum(len(row) - start for row, start in zip(examples.rows, examples.prompt_lengths))
    total = 0.0
    for row, start in zip(examples.rows, examples.prompt_lengths):
        ids = torch.tensor([row])
        logits = adapted(input_ids=ids, use_cache=False).logits[0, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum") / num_learned
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad for name, parameter in trainable(adapted).items()}


@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("rows_a_pass", [1, 4, 16])
def test_a_step_has_the_gradient_of_its_examples_taken_one_by_one(small, tokenizer, tmp_path, quant, rows_a_pass):
    config = small(*ONE_STEP, f"quant={quant}", f"hardware.per_device_train_batch_size={rows_a_pass}")
    loss, expected = one_by_one(config, tokenizer)
    examples, seen = tokens(config, tokenizer), Gradients()
    assert len(examples.rows) == 16
    trainer = training.build_trainer(
        config, adapted_at_random(config), tokenizer, examples, examples, tmp_path, NO_TRACKER
    )
    trainer.add_callback(seen)
    trainer.train()
    assert seen.found.keys() == expected.keys()
    assert all(gradient.norm() > 0 for gradient in expected.values())
    difference = sum((seen.found[name] - gradient).square().sum() for name, gradient in expected.items()).sqrt()
    assert difference / sum(gradient.square().sum() for gradient in expected.values()).sqrt() < 1e-5
    logged = next(row["loss"] for row in trainer.state.log_history if "loss" in row)
    assert logged == pytest.approx(loss, abs=1e-4)  # the trainer logs four decimals


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_example_sees_nothing_of_the_others_in_its_batch(small, tokenizer, attention):
    config = small("phase=1", "quant=none", f"model.attn_implementation={attention}")
    adapted = adapted_at_random(config).eval()
    collate = training.CompletionCollator(tokenizer.pad_token_id)
    first = {"input_ids": list(range(5, 45)), "prompt_length": 20}

    def logits_beside(*others):
        batch = collate([first, *({"input_ids": ids, "prompt_length": 1} for ids in others)])
        with torch.no_grad():
            outputs = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        return outputs.logits[0, :40]

    alone = logits_beside()
    for other in ([7] * 40, [9] * 40, [7] * 10, [7] * 90):
        assert torch.allclose(logits_beside(other), alone, atol=1e-5)
    assert not torch.allclose(alone[1:], alone[:-1], atol=1e-2)


# Rows, labels and order


def test_only_the_sql_and_its_eos_are_learned(small, tokenizer):
    examples = tokens(small("phase=1"), tokenizer)
    batch = training.CompletionCollator(tokenizer.pad_token_id)(list(examples.dataset()))
    for example, labels in zip(examples.examples, batch["labels"]):
        learned = labels[labels != -100].tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]) == prompts.target(example.sql)


def test_the_collator_pads_on_the_right_and_masks_what_it_pads():
    rows = [{"input_ids": [5, 6, 7, 8], "prompt_length": 2}, {"input_ids": [9, 4], "prompt_length": 1}]
    batch = training.CompletionCollator(pad_token_id=0)(rows)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 7, 8], [9, 4, 0, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [[-100, -100, 7, 8], [-100, 4, -100, -100]],
    }
    assert {value.dtype for value in batch.values()} == {torch.int64}


def epochs(sampler, number):
    orders = []
    for epoch in range(number):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    return orders


def steps(order, batch_size=4):
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


LENGTHS = [(7 * i) % 23 for i in range(30)]


def test_every_epoch_is_another_permutation_and_a_seed_repeats_them():
    orders = epochs(training.StepSampler(LENGTHS, 4, seed=1), 3)
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert epochs(training.StepSampler(LENGTHS, 4, seed=1), 3) == orders
    assert epochs(training.StepSampler(LENGTHS, 4, seed=2), 3)[0] != orders[0]
    assert len(training.StepSampler(LENGTHS, 4, seed=1)) == 30


def test_sorting_by_length_changes_no_steps_examples():
    orders = epochs(training.StepSampler(LENGTHS, 4, seed=1), 2)
    unsorted = epochs(training.StepSampler([0] * 30, 4, seed=1), 2)  # a stable sort of equal lengths is none
    for order, shuffle in zip(orders, unsorted):
        assert order != shuffle
        assert [set(step) for step in steps(order)] == [set(step) for step in steps(shuffle)]
        for step in steps(order):
            assert [LENGTHS[i] for i in step] == sorted(LENGTHS[i] for i in step)


@pytest.mark.parametrize("rows_a_pass", [1, 2, 4])
def test_how_many_rows_fit_a_pass_changes_no_steps_examples(small, tokenizer, tmp_path, rows_a_pass):
    config = small("phase=1", "trainer.batch_size=4", f"hardware.per_device_train_batch_size={rows_a_pass}")
    examples = tokens(config, tokenizer)
    trainer = training.build_trainer(
        config, adapted_at_random(config), tokenizer, examples, examples, tmp_path, NO_TRACKER
    )
    sampler = training.StepSampler([len(row) for row in examples.rows], 4, seed=config.seed)
    assert list(trainer._get_train_sampler()) == list(sampler)


def test_only_the_positions_asked_for_reach_the_head():
    head, hidden = torch.nn.Linear(3, 5), torch.randn(2, 4, 3)
    keep = torch.tensor([[False, True, True, False], [False, False, False, True]])
    whole = head(hidden)
    with training.only_positions(head, keep):
        assert torch.allclose(head(hidden), whole[keep].unsqueeze(0))
    assert torch.equal(head(hidden), whole)


def test_the_head_is_whole_again_after_an_exception():
    head, hidden = torch.nn.Linear(3, 5), torch.randn(2, 4, 3)
    with pytest.raises(ZeroDivisionError), training.only_positions(head, torch.ones(2, 4, dtype=torch.bool)):
        raise ZeroDivisionError
    assert head(hidden).shape == (2, 4, 5)


def test_examples_that_do_not_fit_are_dropped_and_counted(small, tokenizer, caplog):
    roomy, tight = small("phase=1", "prompt.max_sql_tokens=200"), small("phase=1", "prompt.max_sql_tokens=30")
    everything = tokens(roomy, tokenizer)
    fitting = [
        example.id
        for example, row, start in zip(everything.examples, everything.rows, everything.prompt_lengths)
        if len(row) - start <= 30
    ]
    assert 0 < len(fitting) < len(everything.rows)
    kept = tokens(tight, tokenizer)
    assert [example.id for example in kept.examples] == fitting
    assert kept.num_too_long == len(everything.rows) - len(fitting)
    assert f"{kept.num_too_long} examples do not fit and were dropped" in caplog.text


def test_examples_that_do_not_fit_are_refused_where_bad_rows_are(small, tokenizer):
    config = small("phase=1", "prompt.max_sql_tokens=30", "data.on_bad_row=refuse")
    assert config.data.on_bad_row is BadRow.refuse
    with pytest.raises(ValueError, match=r"over prompt\.max_sql_tokens=30; raise it"):
        tokens(config, tokenizer)


def test_no_example_that_fits_is_an_error_with_its_setting(small, tokenizer):
    with pytest.raises(ValueError, match=r"no example fits: .*prompt\.max_sql_tokens=2"):
        tokens(small("phase=1", "prompt.max_sql_tokens=2"), tokenizer)


# TRL's settings


@pytest.fixture
def passed(monkeypatch):
    """A function from config to what sft_config() would pass to TRL, also for GPUs that this machine does not have."""
    monkeypatch.setattr(training, "SFTConfig", lambda **settings: SimpleNamespace(**settings))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    return lambda config: training.sft_config(config, Path("run"))


@pytest.mark.parametrize("hardware", ["cpu", "gpu", "t4", "t4x2"])
def test_whatever_the_hardware_a_step_has_batch_size_examples(compose, passed, hardware):
    config = compose(["model=tiny", f"hardware={hardware}"])
    settings = passed(config)
    assert settings.per_device_train_batch_size * settings.gradient_accumulation_steps == config.trainer.batch_size


@pytest.mark.parametrize("hardware, fp16, bf16", [("t4", True, False), ("t4x2", True, False), ("gpu", False, True)])
def test_at_most_one_half_precision_is_on(compose, passed, hardware, fp16, bf16):
    settings = passed(compose(["model=tiny", f"hardware={hardware}"]))
    assert (settings.fp16, settings.bf16) == (fp16, bf16)


@pytest.mark.parametrize("bf16", [True, False])
def test_the_cpu_gets_a_bf16_flag_of_its_own_and_never_fp16(compose, passed, bf16):
    settings = passed(compose(["model=tiny", "hardware=cpu", f"hardware.bf16={bf16}"]))
    assert (settings.fp16, settings.bf16, settings.use_cpu) == (False, bf16, True)


@pytest.mark.parametrize("hardware", ["cpu", "gpu", "t4"])
def test_upstreams_names_are_passed_on_unchanged(compose, passed, hardware):
    overrides = {
        "learning_rate": 0.3,
        "num_train_epochs": 2.5,
        "max_steps": 7,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.2,
        "weight_decay": 0.1,
        "max_grad_norm": 0.7,
        "optim": "sgd",
        "max_length": 777,
        "logging_steps": 0.25,
        "eval_steps": 0.5,
        "save_steps": 0.5,
        "save_total_limit": 3,
    }
    assert overrides.keys() | {"batch_size"} == {field.name for field in dataclasses.fields(Trainer)}
    settings = passed(
        compose(["model=tiny", f"hardware={hardware}", "seed=5", *(f"trainer.{k}={v}" for k, v in overrides.items())])
    )
    assert {key: getattr(settings, key) for key in overrides} == overrides
    assert (settings.seed, settings.data_seed) == (5, 5)


def test_trl_takes_the_settings_and_keeps_two_checkpoints(small, tmp_path):
    settings = training.sft_config(small("phase=1"), tmp_path)
    assert settings.save_total_limit == 2
    assert settings.logging_nan_inf_filter is False
    assert Path(settings.output_dir) == tmp_path / "checkpoints"


@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "paged_adamw_32bit", "adamw_8bit"])
def test_a_gpu_optimizer_is_replaced_on_the_cpu_with_one_warning(small, tmp_path, caplog, optim):
    caplog.set_level(logging.WARNING)
    assert training.sft_config(small("phase=1", f"trainer.optim={optim}"), tmp_path).optim == "adamw_torch"
    assert [record.getMessage() for record in caplog.records if optim in record.getMessage()] == [
        f"trainer.optim={optim} needs a GPU; on the CPU adamw_torch takes its place"
    ]


def test_an_optimizer_stays_where_it_works(compose, small, passed, caplog):
    assert passed(compose(["model=tiny", "hardware=gpu"])).optim == "paged_adamw_8bit"
    assert passed(small("phase=1", "trainer.optim=adamw_torch_fused")).optim == "adamw_torch_fused"
    assert "takes its place" not in caplog.text


def test_the_hub_is_told_of_only_when_it_is_asked_for(small, passed):
    pushed = passed(small("phase=1", "hub=push", "hub.hub_model_id=tester/x"))
    assert (pushed.push_to_hub, pushed.hub_model_id, pushed.hub_strategy) == (True, "tester/x", "checkpoint")
    assert pushed.hub_private_repo is True
    assert not [key for key in vars(passed(small("phase=1"))) if "hub" in key]


# Whole runs


def test_a_finished_run_says_what_made_it(curriculum):
    stamp = curriculum.one.read("run.json")
    assert (stamp["status"], stamp["kind"], stamp["phase"], stamp["seed"]) == ("finished", "train", 1, 42)
    assert stamp["started"] <= stamp["finished"]
    assert stamp["fingerprint"] == json.loads(json.dumps(training.fingerprint(curriculum.one.config)))
    assert stamp["versions"]["torch"] == torch.__version__
    assert stamp["parent"] is None
    assert stamp["parent_lora_b_norm"] == 0
    assert (stamp["data"]["name"], stamp["data"]["path"]) == ("gretel", "mini")
    loaded = data.load(curriculum.one.config.data, "train", seed=42)
    assert stamp["data"]["sha256"] == loaded.report.sha256
    assert stamp["data_summary"] == loaded.report.summary()
    assert curriculum.two.read("run.json")["data"]["sha256"] != stamp["data"]["sha256"]


def test_a_finished_run_has_its_metrics_flat(curriculum, tokenizer):
    metrics, examples = curriculum.one.read("metrics.json"), tokens(curriculum.one.config, tokenizer)
    assert metrics["train/steps"] == 3
    assert metrics["train/examples"] == len(examples.rows)
    assert metrics["train/tokens"] == sum(map(len, examples.rows))
    assert metrics["train/too_long"] == examples.num_too_long
    assert metrics["train/seconds"] > 0
    losses = [row["eval_loss"] for row in curriculum.one.read("history.jsonl") if "eval_loss" in row]
    assert metrics["validation/loss"] == losses[-1]
    assert all(isinstance(value, float) for value in metrics.values())


def test_history_has_both_losses_and_training_lowers_them(curriculum):
    history = curriculum.one.read("history.jsonl")
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3]
    validation = [row["eval_loss"] for row in history if "eval_loss" in row]
    assert len(validation) >= 2
    assert validation[-1] < validation[0]


def test_live_samples_put_a_prediction_beside_its_gold_with_a_verdict(curriculum):
    rows = curriculum.two.read("samples.jsonl")
    history = curriculum.two.read("history.jsonl")
    assert [row["step"] for row in rows] == [row["step"] for row in history if "eval_loss" in row]
    held_out = {e.id: e for e in data.load(curriculum.two.config.data, "validation", seed=42).examples}
    for row in rows:
        assert row["question"] == held_out[row["id"]].question
        assert row["gold"] == held_out[row["id"]].sql
        assert isinstance(row["prediction"], str)
        assert row["verdict"]
        assert row["matches"] is (row["verdict"] == "match")


def test_a_finished_run_has_its_loss_curve_and_at_most_two_checkpoints(curriculum):
    for phase in (curriculum.one, curriculum.two):
        assert (phase.run / "plots/loss.png").read_bytes().startswith(b"\x89PNG")
        checkpoints = sorted(path.name for path in (phase.run / "checkpoints").glob("checkpoint-*"))
        assert checkpoints == ["checkpoint-2", "checkpoint-3"]
        final = (phase.adapter / "adapter_model.safetensors").read_bytes()
        assert (phase.run / "checkpoints/checkpoint-3/adapter_model.safetensors").read_bytes() == final


def b_norm(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    return sum(value.float().square().sum().item() for key, value in weights.items() if "lora_B" in key) ** 0.5


def test_phase_2_continues_the_adapter_of_the_finished_phase_1(curriculum):
    stamp = curriculum.two.read("run.json")
    assert curriculum.two.config.adapter == "auto"
    assert Path(stamp["parent"]) == curriculum.one.adapter
    assert b_norm(curriculum.one.adapter) > 0
    assert stamp["parent_lora_b_norm"] == pytest.approx(b_norm(curriculum.one.adapter), rel=1e-6)
    assert b_norm(curriculum.two.adapter) != b_norm(curriculum.one.adapter)


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_training_starts_from_the_adapter_to_the_last_bit(small, tokenizer, curriculum, tmp_path, quant):
    config = small("phase=2", f"quant={quant}")
    adapted = model.load_adapter(model.load_base(config), curriculum.one.adapter, trainable=True)
    before = {name: parameter.detach().clone() for name, parameter in trainable(adapted).items()}
    examples = tokens(config, tokenizer)
    trainer = training.build_trainer(config, adapted, tokenizer, examples, examples, tmp_path, NO_TRACKER)
    after = trainable(trainer.model)
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []


def test_what_learns_is_float32_also_when_the_adapter_came_as_bf16(small, tokenizer, curriculum, tmp_path):
    config = small("phase=2")
    adapted = model.load_adapter(model.load_base(config), curriculum.one.adapter, trainable=True)
    for parameter in trainable(adapted).values():
        parameter.data = parameter.data.bfloat16()
    examples = tokens(config, tokenizer)
    trainer = training.build_trainer(config, adapted, tokenizer, examples, examples, tmp_path, NO_TRACKER)
    learning = trainable(trainer.model)
    assert {parameter.dtype for parameter in learning.values()} == {torch.float32}
    grouped = [parameter for group in trainer.create_optimizer().param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in learning.values()}
    saved = load_file(curriculum.two.adapter / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_phase_2_names_the_runs_that_it_cannot_continue(small, curriculum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "zzz_failed"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        shutil.copy(curriculum.folder / "outputs" / name / "run.json", tmp_path / "outputs" / name)
    with pytest.raises(ValueError, match="no finished phase-1 run to continue") as refused:
        training.train(small("phase=2", "prompt=question_only"), str(tmp_path / "run"))
    assert "outputs/zzz_failed: its status is failed" in str(refused.value)
    assert "outputs/one: prompt.style is 'question_only' here and 'ddl' there" in str(refused.value)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"


def test_phase_2_without_any_run_says_how_to_make_one(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"train one with `python train\.py phase=1` or name one with adapter=FOLDER"):
        training.train(small("phase=2"), str(tmp_path / "run"))


def losses(run):
    return [{k: row[k] for k in ("step", "loss", "eval_loss", "grad_norm") if k in row} for row in runs.read_jsonl(run)]


def test_the_same_seed_gives_the_same_losses_and_the_same_adapter_to_the_byte(small, curriculum, tmp_path):
    training.train(small("phase=1"), str(tmp_path / "again"))
    assert losses(tmp_path / "again/history.jsonl") == losses(curriculum.one.run / "history.jsonl")
    assert runs.read_jsonl(tmp_path / "again/samples.jsonl") == curriculum.one.read("samples.jsonl")
    first, again = curriculum.one.adapter, tmp_path / "again/adapter"
    weights = "adapter_model.safetensors"
    assert (again / weights).read_bytes() == (first / weights).read_bytes()


def test_a_seed_decides_the_first_weights_and_the_rows(small, tmp_path, monkeypatch):
    begun = []

    def begin(_config, adapted, _tokenizer, train_set, *_):
        begun.append((torch.cat([value.flatten() for value in trainable(adapted).values()]), train_set.rows))
        raise InterruptedError

    monkeypatch.setattr(training, "build_trainer", begin)
    for number, seed in enumerate((1, 2, 1)):
        with pytest.raises(InterruptedError):
            training.train(small("phase=1", f"seed={seed}"), str(tmp_path / str(number)))
    (weights, rows), (other_weights, other_rows), (same_weights, same_rows) = begun
    assert torch.equal(same_weights, weights)
    assert same_rows == rows
    assert not torch.equal(other_weights, weights)
    assert other_rows != rows


# Ends that are not good


@pytest.mark.parametrize("logging_steps", [1, 10], ids=["logged every step", "ends before the first log"])
def test_a_loss_that_is_not_a_number_stops_the_run(small, tmp_path, monkeypatch, logging_steps):
    compute = training.CompletionTrainer.compute_loss

    def not_a_number(self, network, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = compute(self, network, inputs, True, num_items_in_batch)
        loss = loss * float("nan")
        return (loss, outputs) if return_outputs else loss

    monkeypatch.setattr(training.CompletionTrainer, "compute_loss", not_a_number)
    config = small("phase=1", "eval.num_live_samples=0", f"trainer.logging_steps={logging_steps}")
    with pytest.raises(RuntimeError, match=r"loss is nan by step \d; lower trainer\.learning_rate"):
        training.train(config, str(tmp_path))
    stamp = json.loads((tmp_path / "run.json").read_text())
    assert stamp["status"] == "failed"
    assert "loss is nan" in stamp["error"]
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    "error, status", [(MemoryError("no room"), "failed"), (KeyboardInterrupt(), "interrupted")], ids=lambda v: str(v)
)
def test_a_run_that_breaks_off_says_so(small, tmp_path, monkeypatch, error, status):
    def break_off(*_):
        raise error

    monkeypatch.setattr(training, "build_trainer", break_off)
    with pytest.raises(type(error)):
        training.train(small("phase=1"), str(tmp_path))
    stamp = json.loads((tmp_path / "run.json").read_text())
    assert (stamp["status"], stamp["error"]) == (status, repr(error))


def test_a_folder_holds_one_run(small, curriculum):
    before = curriculum.one.read("run.json")
    with pytest.raises(ValueError, match=r"already holds a run; choose another with hydra\.run\.dir=DIR"):
        training.train(small("phase=1"), str(curriculum.one.run))
    assert curriculum.one.read("run.json") == before
