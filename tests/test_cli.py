"""The text2sql command: sweeps as tables and plots, and evaluations compared question by question."""

import json
import subprocess
import sys
from pathlib import Path

import fake_sweep
import pytest

from text2sql import cli, evaluation

ROOT = Path(__file__).resolve().parent.parent


def evaluated(folder, label, correct=1, total=2, kind="evaluate", status="finished"):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": kind, "label": label, "status": status}))
    verdicts = ["match" if number < correct else "mismatch" for number in range(total)]
    lines = [{"verdict": verdict, "reason": "", "hardness": "easy"} for verdict in verdicts]
    (folder / "metrics.json").write_text(json.dumps(evaluation.metrics(lines)))


def rows(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("model ")]


def test_evaluations_by_hardness_are_rows_in_the_order_of_their_folders(tmp_path, capsys):
    for name, label, correct in (("2", "tiny phase 2", 2), ("0", "tiny base", 0), ("1", "tiny phase 1", 1)):
        evaluated(tmp_path / "sweep" / name, label, correct)
    assert cli.main(["table", "--hardness", str(tmp_path / "sweep")]) == 0
    printed = rows(capsys)
    assert [line.split(" (")[0] for line in printed] == ["tiny base", "tiny phase 1", "tiny phase 2"]
    assert [share in line for share, line in zip((" 0.0 %", " 50.0 %", " 100.0 %"), printed)] == [True] * 3


def test_the_tenth_job_comes_after_the_second(tmp_path, capsys):
    for number in (10, 2, 1):
        evaluated(tmp_path / str(number), f"model-{number}")
    cli.main(["table", "--hardness", str(tmp_path)])
    assert [line.split()[0] for line in rows(capsys)] == ["model-1", "model-2", "model-10"]


def test_evaluations_of_several_folders_are_all_shown(tmp_path, capsys):
    evaluated(tmp_path / "a" / "0", "tiny", 1)
    evaluated(tmp_path / "b" / "0", "tiny", 2)
    cli.main(["table", str(tmp_path / "a"), str(tmp_path / "b"), "--hardness"])
    assert len(rows(capsys)) == 2


@pytest.mark.parametrize("changes", [{"kind": "train"}, {"status": "failed"}, {"status": "running"}])
def test_what_is_no_finished_evaluation_has_no_hardness(tmp_path, capsys, changes):
    evaluated(tmp_path / "0", "good")
    evaluated(tmp_path / "1", "other", **changes)
    cli.main(["table", "--hardness", str(tmp_path)])
    assert [line.split()[0] for line in rows(capsys)] == ["good"]


def test_an_evaluation_whose_stamp_was_cut_off_takes_no_other_from_the_table(tmp_path, capsys):
    evaluated(tmp_path / "0", "good")
    evaluated(tmp_path / "1", "cut")
    (tmp_path / "1/run.json").write_text('{"kind": "evalu')
    assert cli.main(["table", "--hardness", str(tmp_path)]) == 0
    assert [line.split()[0] for line in rows(capsys)] == ["good"]


def test_folders_without_an_evaluation_are_an_error_on_one_line(tmp_path, capsys):
    fake_sweep.job(tmp_path / "0")
    assert cli.main(["table", "--hardness", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: no finished evaluation below {tmp_path}; evaluate.py makes them\n"


@pytest.fixture
def sweep(tmp_path):
    return fake_sweep.grid(tmp_path / "sweep", {"lora.r": [4, 8]}, lambda values, seed: (10 * values[0], 1.0))


def test_a_sweep_is_a_table_with_its_best_job_first(sweep, capsys):
    assert cli.main(["table", str(sweep)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["job", "lora.r"]
    assert [line.split()[:3] for line in lines[1:3]] == [["1", "8", "80.0"], ["0", "4", "40.0"]]
    assert lines[-1] == "  python train.py lora.r=8 seed=42"


@pytest.mark.parametrize("format", ["terminal", "csv", "markdown"])
def test_a_table_is_written_to_a_file_whole_and_nothing_is_printed(sweep, tmp_path, capsys, format):
    cli.main(["table", str(sweep), "--format", format])
    printed = capsys.readouterr().out
    assert cli.main(["table", str(sweep), "--format", format, "--output", str(tmp_path / "table")]) == 0
    assert (tmp_path / "table").read_text() == printed
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "table"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--by", "speed"], "no job has the metric --by speed"),
        (["--over", "seed"], "--over seed is not among the swept keys; these are lora.r"),
        (["--output", "/nonexistent/table"], "cannot write --output /nonexistent/table"),
    ],
)
def test_a_table_that_cannot_be_made_is_an_error_on_one_line(sweep, capsys, more, said):
    assert cli.main(["table", str(sweep), *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and said in printed.err and printed.err.count("\n") == 1


def test_plot_says_where_its_files_are(sweep, capsys):
    assert cli.main(["plot", str(sweep)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(sweep / name) for name in ("plots/loss.png", "plots/by_0_lora_r.png", "report.html")]
    assert all(Path(line).is_file() for line in printed)


def test_plots_go_where_they_are_asked_to(sweep, tmp_path, capsys):
    assert cli.main(["plot", str(sweep), "--output", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "report.html").is_file()
    assert not (sweep / "report.html").exists()


def test_a_table_and_a_page_of_nothing_are_errors(tmp_path, capsys):
    for command in ("table", "plot"):
        assert cli.main([command, str(tmp_path)]) == 2
        assert "error: no run below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("table", ["--by", "--over", "--format", "--output", "--leave-out", "--hardness"]),
        ("plot", ["--by", "--over", "--output"]),
    ],
)
def test_the_help_of_a_sweep_names_every_option_and_has_examples(capsys, command, options):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option in printed for option in [*options, f"text2sql {command} multirun/SWEEP"])


def answered(folder, answers):
    """The run folder of an evaluation, one question a database, from 0 and 1 for wrong and right answers."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"kind": "evaluate", "label": folder.name, "status": "finished"}))
    with (folder / "predictions.jsonl").open("w") as file:
        for number, answer in enumerate(answers):
            verdict = {"0": "mismatch", "1": "match"}[answer]
            row = {"id": f"q{number}", "db_id": f"db{number}", "question": "?", "gold": "SELECT 1", "verdict": verdict}
            file.write(json.dumps({**row, "reason": "", "correct": answer == "1", "strict": answer != "0"}) + "\n")
    return str(folder)


def test_compare_prints_the_difference_and_the_flips(tmp_path, capsys):
    assert cli.main(["compare", answered(tmp_path / "a", "0001"), answered(tmp_path / "b", "1110")]) == 0
    printed = capsys.readouterr().out
    assert "+50.0" in printed
    assert "right in B, wrong in A: 3" in printed
    assert "right in A, wrong in B: 1" in printed


def test_compare_lists_all_flips_if_asked(tmp_path, capsys):
    folders = [answered(tmp_path / "a", "0" * 15), answered(tmp_path / "b", "1" * 15)]
    listed = []
    for more in ([], ["--all"]):
        cli.main(["compare", *folders, *more])
        listed.append(capsys.readouterr().out.count("mismatch -> match"))
    assert listed == [10, 15]


def test_compare_writes_all_of_it_as_json(tmp_path, capsys):
    file = tmp_path / "comparison.json"
    folders = [answered(tmp_path / "a", "0" * 15), answered(tmp_path / "b", "1" * 15)]
    assert cli.main(["compare", *folders, "--metric", "strict", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert (written["metric"], written["questions"], written["databases"]) == ("strict", 15, 15)
    assert len(written["differences"][0]["gained"]) == 15
    assert written["differences"][0]["interval"] == [1.0, 1.0]


def test_a_comparison_that_cannot_be_made_is_an_error_on_one_line(tmp_path, capsys):
    folders = [answered(tmp_path / "a", "0101"), answered(tmp_path / "b", "010")]
    assert cli.main(["compare", *folders]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: {folders[1]} lacks 1 of the 4 questions of {folders[0]}, such as q3; "
        "--common compares those that all runs have\n"
    )
    assert cli.main(["compare", *folders, "--common"]) == 0


def test_a_json_file_that_cannot_be_written_is_an_error(tmp_path, capsys):
    folder = answered(tmp_path / "a", "0101")
    assert cli.main(["compare", folder, folder, "--json", str(tmp_path / "nowhere" / "c.json")]) == 2
    assert "error: cannot write --json" in capsys.readouterr().err


def test_the_help_of_reproduce_has_an_example_and_the_order_of_its_arguments(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: text2sql reproduce RUN [OVERRIDE ...] [--check]" in printed
    assert "text2sql reproduce outputs/RUN data.path=data/spider" in printed


def test_a_run_that_cannot_be_repeated_is_an_error_on_one_line(tmp_path, capsys):
    evaluated(tmp_path / "run", "tiny")
    assert cli.main(["reproduce", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path}/run has no .hydra/config.yaml, from which a run is repeated")
    assert printed.err.count("\n") == 1


def test_the_help_of_compare_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--help"])
    assert ended.value.code == 0
    assert "text2sql compare outputs/" in capsys.readouterr().out


def test_statistics_configs_and_plots_are_loaded_where_they_are_needed_only():
    code = "import sys; from text2sql import cli; print({'numpy', 'scipy', 'omegaconf', 'hydra', 'yaml', 'matplotlib'} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize(
    "arguments", [[], ["table"], ["plot"], ["plot", "a", "b"], ["compare", "folder"], ["tabel", "folder"]]
)
def test_a_command_that_is_not_there_ends_with_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: text2sql" in capsys.readouterr().err
