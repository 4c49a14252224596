"""Sweeps read back as tables: what differs, what came of it, what went wrong, and how to do the best once more."""

import csv
import io
import json
import math
import shutil

import fake_sweep
import pytest

from text2sql import sweeps
from text2sql.sweeps import formats, jobs, overrides, repeat

DDL, QUESTION = ["prompt=ddl"], ["prompt=question_only"]


def names(table):
    return [line.job.name for line in table.lines]


def rows(table):
    """The CSV of the table as dicts."""
    return list(csv.DictReader(io.StringIO(formats.as_csv(table))))


def read(sweep, **options):
    return sweeps.read([sweep], **options)


# What differs


def test_keys_that_differ_are_columns_and_others_are_not(tmp_path):
    fake_sweep.job(tmp_path / "0", ["lora.r=4", "model=tiny"])
    fake_sweep.job(tmp_path / "1", ["lora.r=8", "model=tiny"])
    table = read(tmp_path)
    assert table.keys == ["lora.r"]
    assert [line.values for line in table.lines] == [{"lora.r": "4"}, {"lora.r": "8"}]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("phase='1'", ("phase", "1")),
        ("lora.r=8", ("lora.r", "8")),
        ("trainer.learning_rate=1e-4", ("trainer.learning_rate", "0.0001")),
        ("lora.target_modules=[q_proj,v_proj]", ("lora.target_modules", "[q_proj,v_proj]")),
        ('prompt.instruction="a = b, c"', ("prompt.instruction", "a = b, c")),
        ("+extra.key=true", ("extra.key", "true")),
        ("++extra.key=null", ("extra.key", "null")),
        ("~extra.key", ("extra.key", "(deleted)")),
        ("db@other=x", ("db@other", "x")),
        ("adapter=multirun/a/0/adapter", ("adapter", "multirun/a/0/adapter")),
        ("what is this", ("what is this", "")),
        ("a=[unclosed", ("a", "[unclosed")),
    ],
)
def test_an_override_is_read_as_hydra_reads_it(typed, expected):
    assert overrides.parse(typed) == expected


def test_a_key_that_one_job_leaves_at_its_default_has_the_value_of_its_config(tmp_path):
    fake_sweep.job(tmp_path / "0", ["lora.r=4"])
    fake_sweep.job(tmp_path / "1", ["prompt=names"], config={"lora": {"r": 16}}, choices={"prompt": "names"})
    fake_sweep.job(tmp_path / "2", [], config={"lora": {"r": 4}}, choices={"prompt": "ddl"})
    values = {line.job.name: line.values for line in read(tmp_path).lines}
    assert values["1"] == {"lora.r": "16", "prompt": "names"}
    assert values["2"] == {"lora.r": "4", "prompt": "ddl"}


def test_one_number_written_in_two_ways_is_no_difference(tmp_path):
    config = {"trainer": {"learning_rate": 0.0001}}
    fake_sweep.job(tmp_path / "0", ["trainer.learning_rate=1e-4"], config=config)
    fake_sweep.job(tmp_path / "1", [], config=config)
    assert read(tmp_path).keys == []


def test_where_nothing_typed_differs_the_configs_are_compared(tmp_path):
    for number, rank in enumerate((4, 8)):
        fake_sweep.job(tmp_path / str(number), [], config={"seed": 42, "lora": {"r": rank, "bias": "none"}})
    assert read(tmp_path).keys == ["lora.r"]


def test_trainings_are_not_compared_with_evaluations(tmp_path):
    fake_sweep.job(tmp_path / "0", ["data.max_samples=8"], phase=1)
    for number in (0, 1):
        fake_sweep.job(tmp_path / "evaluation" / str(number), [f"adapter=runs/{number}"], kind="evaluate", label="tiny")
    assert read(tmp_path).keys == ["adapter"]


def test_phases_have_a_column_of_their_own(tmp_path):
    fake_sweep.job(tmp_path / "0", ["phase='1'", "lora.r=4"], phase=1)
    fake_sweep.job(tmp_path / "1", ["phase='2'", "lora.r=4"], phase=2)
    fake_sweep.job(tmp_path / "2", ["phase='2'", "lora.r=8"], status=None)
    table = read(tmp_path)
    assert table.keys == ["lora.r"]
    assert {line.job.name: line.phase for line in table.lines} == {"0": "1", "1": "2", "2": "2"}
    assert "phase" in formats.as_text(table).splitlines()[0]


def test_a_run_made_of_a_saved_config_has_no_choices_to_differ_in(tmp_path):
    fake_sweep.job(tmp_path / "0", ["model=tiny", "lora.r=4"], config={"lora": {"r": 4}}, choices={"model": "tiny"})
    fake_sweep.job(tmp_path / "1", ["lora.r=8"], config={"lora": {"r": 8}, "model": {"name": "tiny"}})
    assert read(tmp_path).keys == ["lora.r"]


# Which is best


def test_the_best_by_accuracy_comes_first(tmp_path):
    for number, correct in enumerate((30, 90, 60)):
        metrics = {**fake_sweep.accuracy(correct, 100), "validation/loss": number}
        fake_sweep.job(tmp_path / str(number), [f"lora.r={number}"], metrics=metrics)
    table = read(tmp_path)
    assert (table.by, names(table)) == ("eval/execution_accuracy", ["1", "2", "0"])


def test_losses_of_different_phases_are_not_compared(tmp_path):
    for number, (phase, loss) in enumerate([(1, 0.5), (2, 1.5), (2, 1.25), (1, 0.25)]):
        fake_sweep.job(tmp_path / str(number), [f"phase='{phase}'"], metrics={"validation/loss": loss}, phase=phase)
    table = read(tmp_path)
    assert names(table) == ["2", "1", "3", "0"]
    assert "phase by phase" in formats.as_text(table)


def test_without_an_accuracy_the_lowest_loss_comes_first(tmp_path):
    for number, loss in enumerate((3.0, 1.0, 2.0)):
        fake_sweep.job(tmp_path / str(number), [f"lora.r={number}"], metrics={"validation/loss": loss})
    assert names(read(tmp_path)) == ["1", "2", "0"]


@pytest.mark.parametrize(("metric", "order"), [("train/loss", ["0", "1"]), ("eval/exact_match", ["1", "0"])])
def test_another_metric_can_be_chosen_and_is_a_column(tmp_path, metric, order):
    for number in (0, 1):
        fake_sweep.job(tmp_path / str(number), [f"lora.r={number}"], metrics={metric: number / 4, "validation/loss": 1})
    table = read(tmp_path, by=metric)
    assert names(table) == order
    assert metric in table.metrics


def test_a_metric_that_no_job_has_is_refused_with_those_there_are(tmp_path):
    fake_sweep.job(tmp_path / "0", metrics={"validation/loss": 1.0})
    with pytest.raises(ValueError, match=r"--by accuracy; there are validation/loss"):
        read(tmp_path, by="accuracy")


def test_jobs_alike_are_in_the_order_of_their_numbers_as_numbers(tmp_path):
    for number, rank in enumerate((16, 4, 128, 8)):
        fake_sweep.job(tmp_path / str(number), [f"lora.r={rank}"], metrics={"validation/loss": 1.0})
    assert [line.values["lora.r"] for line in read(tmp_path).lines] == ["4", "8", "16", "128"]


def test_the_tenth_job_comes_after_the_second(tmp_path):
    for number in (10, 2, 1):
        fake_sweep.job(tmp_path / str(number), status="failed")
    assert names(read(tmp_path)) == ["1", "2", "10"]


@pytest.mark.parametrize("value", ["nan", "Infinity", None, "0.5", [1], True])
def test_what_is_no_number_is_no_metric(tmp_path, value):
    text = json.dumps({"validation/loss": float(value) if value in ("nan", "Infinity") else value})
    fake_sweep.job(tmp_path / "0", metrics={})
    (tmp_path / "0" / "metrics.json").write_text(text)
    assert read(tmp_path).best is None


def test_intervals_stand_beside_the_accuracy(tmp_path):
    fake_sweep.job(tmp_path / "0", ["lora.r=4"], metrics=fake_sweep.accuracy(50, 100))
    assert "50.0 % (40.4 to 59.6)" in formats.as_text(read(tmp_path))
    (row,) = rows(read(tmp_path))
    assert float(row["eval/execution_accuracy_low"]) == pytest.approx(0.4038, abs=1e-3)


# What went wrong


def test_a_failed_job_is_listed_last_with_its_error_on_one_line(tmp_path):
    fake_sweep.job(tmp_path / "0", status="failed", error="RuntimeError('the loss is nan\n at step 3')\x1b[31m")
    fake_sweep.job(tmp_path / "1", metrics={"validation/loss": 1.0})
    table = read(tmp_path)
    assert names(table) == ["1", "0"]
    assert (table.lines[1].job.status, table.lines[1].job.reason) == (
        "failed",
        "RuntimeError('the loss is nan at step 3') [31m",
    )
    assert "\x1b" not in formats.as_text(table)


def test_an_interrupted_job_is_listed_as_such(tmp_path):
    fake_sweep.job(tmp_path / "0", status="interrupted", error="KeyboardInterrupt()", metrics={"validation/loss": 0.1})
    table = read(tmp_path)
    assert (table.lines[0].job.status, table.best) == ("interrupted", None)


def test_a_long_error_is_cut(tmp_path):
    fake_sweep.job(tmp_path / "0", status="failed", error="x" * 100_000)
    assert len(read(tmp_path).lines[0].job.reason) == jobs.MAX_REASON


def test_a_running_job_says_how_far_it_is(tmp_path):
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "eval_loss": 1.75}]
    folder = fake_sweep.job(tmp_path / "0", status="running", history=history)
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # it is being written
    job = read(tmp_path).lines[0].job
    assert job.status == "running"
    assert job.reason.startswith("at step 2, validation loss 1.75, last wrote ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "run.json is empty"), ("{", "run.json is no JSON"), ("[]", "no JSON object"), ("\xff", "no JSON")],
)
def test_a_broken_stamp_is_listed_as_unreadable(tmp_path, content, reason):
    fake_sweep.job(tmp_path / "0", DDL, metrics={"validation/loss": 1.0})
    (fake_sweep.job(tmp_path / "1", QUESTION) / "run.json").write_text(content)
    table = read(tmp_path)
    assert names(table) == ["0", "1"]
    assert table.lines[1].job.status == "unreadable"
    assert reason in table.lines[1].job.reason


def test_bytes_that_are_no_text_are_no_crash(tmp_path):
    folder = fake_sweep.job(tmp_path / "0", DDL)
    for name in ("run.json", "metrics.json", "history.jsonl", ".hydra/overrides.yaml", ".hydra/config.yaml"):
        (folder / name).write_bytes(b"\xff\xfe\x00{")
    assert read(tmp_path).lines[0].job.status == "unreadable"


def test_a_job_that_was_refused_before_it_began_is_not_started(tmp_path):
    fake_sweep.job(tmp_path / "0", DDL, status=None)
    job = read(tmp_path).lines[0].job
    assert (job.status, job.reason) == ("not started", jobs.NO_STAMP)


def test_jobs_that_the_sweep_has_not_come_to_are_listed(tmp_path):
    fake_sweep.asked_for(tmp_path, "lora.r=4,8", "phase='1','2'", "model=tiny")
    fake_sweep.job(tmp_path / "0", ["lora.r=4", "phase='1'", "model=tiny"], phase=1)
    table = read(tmp_path)
    assert [(line.job.name, line.job.status, line.values, line.phase) for line in table.lines] == [
        ("0", "finished", {"lora.r": "4"}, "1"),
        ("1", "not started", {"lora.r": "4"}, "2"),
        ("2", "not started", {"lora.r": "8"}, "1"),
        ("3", "not started", {"lora.r": "8"}, "2"),
    ]


def test_a_sweep_named_in_a_config_has_its_jobs_listed_too(tmp_path):
    fake_sweep.asked_for(tmp_path, "model=tiny", params={"lora.r": "4,8"})
    fake_sweep.job(tmp_path / "0", ["lora.r=4", "model=tiny"])
    assert [line.values["lora.r"] for line in read(tmp_path).lines] == ["4", "8"]


def test_nobody_knows_what_another_sweeper_will_ask_for(tmp_path):
    target = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    fake_sweep.asked_for(tmp_path, "lora.r=choice(4,8)", target=target)
    fake_sweep.job(tmp_path / "0", ["lora.r=4"])
    table = read(tmp_path)
    assert (names(table), table.optuna) == (["0"], True)


def test_an_evaluation_that_failed_after_its_training_is_told(tmp_path):
    run = fake_sweep.job(tmp_path / "0", metrics={"validation/loss": 1.0})
    (run / "evaluation").mkdir()
    (run / "evaluation" / "run.json").write_text(json.dumps({"status": "failed", "error": "OSError('disk')"}))
    table = read(tmp_path)
    assert names(table) == ["0"]
    assert table.lines[0].job.reason == "its evaluation failed: OSError('disk')"


# Where it is read from


def test_a_single_run_is_a_table_of_one_line(tmp_path):
    run = fake_sweep.job(tmp_path / "outputs" / "run", ["lora.r=4"], metrics={"validation/loss": 1.0})
    assert names(read(run)) == ["run"]


def test_several_folders_are_one_table_and_none_is_counted_twice(tmp_path):
    for name in "ab":
        fake_sweep.job(tmp_path / name / "0", [f"lora.r={ord(name)}"], metrics={"validation/loss": ord(name)})
    table = sweeps.read([tmp_path / "b", tmp_path / "a", tmp_path])
    assert names(table) == [str(tmp_path / "a" / "0"), str(tmp_path / "b" / "0")]


def test_a_sweep_copied_elsewhere_reads_the_same(tmp_path):
    sweep = fake_sweep.grid(tmp_path / "there", {"lora.r": [4, 8]}, lambda values, seed: (values[0], 1.0))
    copy = shutil.copytree(sweep, tmp_path / "here")
    told = [formats.as_text(read(folder)).replace(str(folder), "") for folder in (sweep, copy)]
    assert told[0] == told[1]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run below"):
        read(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        read(tmp_path / "nowhere")


def test_questions_about_some_databases_can_be_left_out(tmp_path):
    run = fake_sweep.job(tmp_path / "0", kind="evaluate", metrics=fake_sweep.accuracy(1, 2))
    answers = [("a", "match"), ("b", "mismatch")]
    lines = [{"db_id": db_id, "verdict": verdict, "reason": "", "hardness": "easy"} for db_id, verdict in answers]
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(tmp_path).lines[0].metric("eval/execution_accuracy") == 0.5
    assert read(tmp_path, leave_out=["b"]).lines[0].metric("eval/execution_accuracy") == 1.0


# Seeds


@pytest.fixture
def seeds(tmp_path):
    keys = {"prompt": ["ddl", "names"]}
    return fake_sweep.grid(
        tmp_path, keys, lambda values, seed: ((50 if values[0] == "ddl" else 70) + seed, 1.0), seeds=(1, 2, 3)
    )


def test_seeds_are_grouped_without_being_asked_for(seeds):
    table = read(seeds)
    assert table.over == "seed"
    assert [(group.values, group.size) for group in table.groups] == [({"prompt": "names"}, 3), ({"prompt": "ddl"}, 3)]
    assert table.groups[0].mean["eval/execution_accuracy"] == pytest.approx(0.72)
    assert table.groups[0].deviation["eval/execution_accuracy"] == pytest.approx(0.01)
    assert "72.0 ± 1.0 %" in formats.as_text(table)


def test_groups_can_be_switched_off_or_be_of_another_key(seeds):
    assert read(seeds, over="none").groups == []
    assert [group.values for group in read(seeds, over="prompt").groups] == [
        {"seed": "3"},
        {"seed": "2"},
        {"seed": "1"},
    ]
    with pytest.raises(ValueError, match=r"--over lora.r is not among the swept keys; these are prompt, seed"):
        read(seeds, over="lora.r")


def test_a_seed_that_failed_is_in_no_mean_and_one_alone_has_no_deviation(seeds):
    for number in (0, 1):
        (seeds / str(number) / "run.json").write_text(json.dumps({"status": "failed", "phase": 1}))
    group = read(seeds).groups[-1]
    assert (group.values, group.size) == ({"prompt": "ddl"}, 1)
    assert group.deviation["eval/execution_accuracy"] is None


def test_groups_are_lines_of_the_csv(seeds):
    kinds = [row["line"] for row in rows(read(seeds))]
    assert kinds == ["job"] * 6 + ["mean", "standard deviation"] * 2


# The best once more


def test_the_best_job_is_repeated_from_its_config_and_as_typed(tmp_path):
    fake_sweep.job(tmp_path / "0", ["phase='1'", "lora.r=4", "a=[b,c]"], metrics={"validation/loss": 1.0})
    saved, typed = (command for _, command in formats.repeat_lines(read(tmp_path)))
    assert saved == f"python train.py --config-dir {tmp_path}/0/.hydra --config-name config"
    assert typed == "python train.py phase=1 lora.r=4 'a=[b,c]'"


def test_an_evaluation_is_repeated_by_evaluate(tmp_path):
    fake_sweep.job(tmp_path / "0", ["model=tiny"], kind="evaluate", metrics=fake_sweep.accuracy(1, 2))
    assert [command.split()[1] for _, command in formats.repeat_lines(read(tmp_path))] == ["evaluate.py"] * 2


def test_a_second_phase_is_repeated_on_the_adapter_that_it_continued(tmp_path):
    run = fake_sweep.job(tmp_path / "1", config={"adapter": "auto"}, parent="/runs/a b/adapter", phase=2)
    job = read(run).lines[0].job
    assert repeat.from_config(job).endswith("""'adapter='"'"'/runs/a b/adapter'"'"''""")


def test_no_command_is_given_where_nothing_finished_or_nothing_was_saved(tmp_path):
    fake_sweep.job(tmp_path / "0", status="failed")
    assert formats.repeat_lines(read(tmp_path)) == []
    run = tmp_path / "1"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"status": "finished", "kind": "train"}))
    (run / "metrics.json").write_text(json.dumps({"validation/loss": 1.0}))
    assert formats.repeat_lines(read(tmp_path)) == []


def test_text_typed_by_anybody_is_quoted_for_the_shell(tmp_path):
    fake_sweep.job(tmp_path / "0", ["a=$(reboot); rm -r /"], metrics={"validation/loss": 1.0})
    assert formats.repeat_lines(read(tmp_path))[1][1] == "python train.py 'a=$(reboot); rm -r /'"


def test_a_large_sweep_is_read_in_a_moment(tmp_path):
    import time

    keys = {"lora.r": list(range(10)), "trainer.learning_rate": [10.0**-n for n in range(1, 11)]}
    sweep = fake_sweep.grid(tmp_path, keys, lambda values, seed: (values[0], math.log(values[0] + 2)))
    started = time.monotonic()
    assert len(read(sweep).lines) == 100
    assert time.monotonic() - started < 10
