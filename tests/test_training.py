"""Rows, and whole runs of both phases with the tiny model."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from omegaconf.errors import ConfigKeyError
from safetensors.torch import load_file

from text2sql import config, data, encoding, fitting, lineage, model, prompts, runs, seeds, training
from text2sql.config import BadRow
from text2sql.passes import concatenate
from text2sql.step import StepGradient
from text2sql.tracking import Tracker
from text2sql.trainer import TokenBudgetTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

NO_TRACKER = Tracker("none", Path(), {})


@pytest.fixture(scope="module")
def tokenizer(small):
    return model.load_tokenizer(small("phase=1").model)


def tokens(config, tokenizer, split="train"):
    return encoding.Tokens.of(data.load(config.data, split, seed=config.seed).examples, tokenizer, config)


def trainable(network):
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


# Rows


def test_only_the_sql_and_its_eos_are_learned(small, tokenizer):
    config = small("phase=1")
    examples = tokens(config, tokenizer)
    for example, row in zip(examples.examples, examples.as_rows()):
        learned = concatenate([row]).targets.tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]) == prompts.target(example.sql)
        assert row.ids[: row.prompt_length] == prompts.encode_prompt(tokenizer, example, config).ids


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


# Whole runs


def test_a_finished_run_says_what_made_it(curriculum):
    stamp = curriculum.one.read("run.json")
    assert (stamp["status"], stamp["kind"], stamp["phase"], stamp["seed"]) == ("finished", "train", 1, 42)
    assert stamp["started"] <= stamp["finished"]
    assert stamp["fingerprint"] == json.loads(
        json.dumps({**lineage.fingerprint(curriculum.one.config), "merged": None})
    )
    assert stamp["versions"]["torch"] == metadata.version("torch")  # torch.__version__ may have the build behind it
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
    (whole,) = (parameter for group in trainer.create_optimizer().param_groups for parameter in group["params"])
    assert whole.dtype == torch.float32
    inside = range(whole.data_ptr(), whole.data_ptr() + 4 * whole.numel())
    assert all(parameter.data_ptr() in inside for parameter in learning.values()), "the optimizer does not see it all"
    saved = load_file(curriculum.two.adapter / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_phase_2_has_the_values_of_the_parents_file(small, curriculum):
    """Before its first step, LoRA-B is what phase 1 has saved, and is not zero."""
    adapted = model.load_adapter(model.load_base(small("phase=2")), curriculum.one.adapter, trainable=True)
    saved = load_file(curriculum.one.adapter / "adapter_model.safetensors")
    loaded = {name.replace(".default", ""): value for name, value in trainable(adapted).items() if "lora_B" in name}
    assert loaded.keys() == {name for name in saved if "lora_B" in name}
    assert all(torch.equal(value, saved[name]) and value.any() for name, value in loaded.items())


@pytest.mark.parametrize("override", ["lora.r=4", "lora.lora_alpha=7", "prompt=names"])
def test_an_adapter_that_does_not_fit_is_refused_before_weights_are_loaded(
    small, curriculum, tmp_path, monkeypatch, override
):
    monkeypatch.chdir(curriculum.folder)
    monkeypatch.setattr(model, "load_base", lambda config: pytest.fail("weights were loaded"))
    with pytest.raises(ValueError, match=r"(lora|prompt)\.\w+ is .* here and .* there"):
        training.train(small("phase=2", override), str(tmp_path / "run"))


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


class Streams:
    """What a training draws by its seed: the first weights, each step's examples, and where dropout's numbers are before it."""

    def __init__(self, monkeypatch, config, run):
        self.weights, self.order, self.dropout = None, [], []
        compute, of_this = TokenBudgetTrainer.training_step, self

        def note(self, network, inputs, *some):
            if of_this.weights is None:
                values = trainable(self.model)
                of_this.weights = {name: value.detach().clone() for name, value in values.items()}
            of_this.order.append([row.ids for row in inputs["rows"]])
            of_this.dropout.append(torch.get_rng_state().tolist())
            return compute(self, network, inputs, *some)

        with monkeypatch.context() as patch:
            patch.setattr(TokenBudgetTrainer, "training_step", note)
            training.train(config, str(run))
        self.dropout.append(torch.get_rng_state().tolist())

    def has_weights_of(self, other):
        return self.weights.keys() == other.weights.keys() and all(
            torch.equal(value, other.weights[name]) for name, value in self.weights.items()
        )


def test_a_change_to_what_one_stream_of_numbers_is_for_shifts_no_other(small, tmp_path, monkeypatch):
    settings = ("phase=1", "trainer.num_train_epochs=2", "trainer.logging_steps=4")
    first = Streams(monkeypatch, small(*settings), tmp_path / "first")
    assert len(first.order) == 6 and len(set(map(str, first.dropout))) == 7

    ranked = Streams(monkeypatch, small(*settings, "lora.r=4"), tmp_path / "rank")
    assert not ranked.has_weights_of(first)
    assert (ranked.order, ranked.dropout) == (first.order, first.dropout)

    load = model.load_base
    with monkeypatch.context() as patch:  # one that draws numbers while it is loaded
        patch.setattr(model, "load_base", lambda config: (load(config), torch.rand(3))[0])
        shorter = Streams(monkeypatch, small(*settings, "lora.lora_dropout=0.0"), tmp_path / "dropout")
    assert shorter.has_weights_of(first)
    assert shorter.order == first.order

    batched = Streams(monkeypatch, small(*settings, "trainer.batch_size=5", "eval.num_live_samples=0"), tmp_path / "b")
    assert batched.has_weights_of(first)
    assert batched.dropout[0] == first.dropout[0]


def test_nothing_but_dropout_draws_from_its_numbers(small, tmp_path, monkeypatch):
    """Neither the loader of the examples, nor an evaluation, nor live samples, nor a checkpoint."""
    settings = ("phase=1", "lora.lora_dropout=0.0", "trainer.eval_steps=2", "trainer.save_steps=2", "seed=7")
    found = Streams(monkeypatch, small(*settings, "trainer.num_train_epochs=2"), tmp_path / "run")
    begun = torch.Generator().manual_seed(seeds.derive(7, seeds.DROPOUT, 0)).get_state().tolist()
    assert found.dropout == [begun] * 7


# Ends that are not good


@pytest.mark.parametrize("logging_steps", [1, 10], ids=["logged every step", "ends before the first log"])
def test_a_loss_that_is_not_a_number_stops_the_run(small, tmp_path, monkeypatch, logging_steps):
    compute = StepGradient.__call__
    monkeypatch.setattr(StepGradient, "__call__", lambda *some, **more: compute(*some, **more) * float("nan"))
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


# How long, and what is forgotten


def test_so_many_tokens_are_so_many_steps_and_a_saved_config_keeps_them(small):
    config = small("phase=1", "trainer.num_tokens=4000", "trainer.batch_size=4")
    assert fitting.with_max_steps(config, [100, 200, 300]).trainer.max_steps == 5
    assert fitting.with_max_steps(config, [4000]).trainer.max_steps == 1
    assert config.trainer.max_steps == -1
    without = small("phase=1")
    assert fitting.with_max_steps(without, [100]) == without


@pytest.mark.parametrize("setting", ["trainer.num_tokens=0", "trainer.num_tokens=100 trainer.max_steps=3"])
def test_two_settings_do_not_both_say_how_long_to_train(small, setting):
    with pytest.raises(ValueError, match=r"trainer\.num_tokens"):
        small("phase=1", *setting.split())


def test_several_processes_encode_what_one_does(small, tokenizer):
    config = small("phase=1", "prompt.max_sql_tokens=30")
    examples = data.load(config.data, "train", seed=config.seed).examples
    alone = encoding.encode_side_by_side(examples, tokenizer, config, 1)
    assert encoding.encode_side_by_side(examples, tokenizer, config, 3) == alone
    assert alone[0] and alone[1]


def test_what_phase_2_forgets_is_measured_on_the_validation_set_of_phase_1(curriculum):
    metrics = [curriculum.one.read("metrics.json"), curriculum.two.read("metrics.json")]
    assert metrics[1]["forgetting/loss_before"] == pytest.approx(metrics[0]["validation/loss"], rel=1e-3)
    assert metrics[1]["forgetting/loss_after"] != metrics[1]["forgetting/loss_before"]
    assert not any(key.startswith("forgetting") for key in metrics[0])


def test_an_adapter_saved_with_settings_of_another_version_still_says_what_it_learned_on(curriculum, tmp_path):
    text = (curriculum.one.run / "adapter" / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("hardware:\n", "hardware:\n  generation_batch_size: 8\n"))
    with pytest.raises(ConfigKeyError):
        config.load(config.read_yaml(str(tmp_path / "config.yaml")))
    assert config.saved_data(str(tmp_path / "config.yaml")) == curriculum.one.config.data
