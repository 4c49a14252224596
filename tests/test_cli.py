"""The text2sql command: evaluations side by side, and compared question by question."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from text2sql import cli, evaluation

ROOT = Path(__file__).resolve().parent.parent


def evaluated(folder, label, correct=1, total=2, kind="evaluate", status="finished"):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": kind, "label": label, "status": status}))
    verdicts = ["match" if number < correct else "mismatch" for number in range(total)]
    lines = [{"verdict": verdict, "reason": "", "hardness": "easy"} for verdict in verdicts]
    (folder / "metrics.json").write_text(json.dumps(evaluation.metrics(lines)))


def plotted(run):
    (run / "plots").mkdir(parents=True)
    (run / "plots" / "loss.png").write_bytes(b"")


def rows(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("model ")]


def test_evaluations_are_rows_in_the_order_of_their_folders(tmp_path, capsys):
    for name, label, correct in (("2", "tiny phase 2", 2), ("0", "tiny base", 0), ("1", "tiny phase 1", 1)):
        evaluated(tmp_path / "sweep" / name, label, correct)
    assert cli.main(["table", str(tmp_path / "sweep")]) == 0
    printed = rows(capsys)
    assert [line.split(" (")[0] for line in printed] == ["tiny base", "tiny phase 1", "tiny phase 2"]
    assert [share in line for share, line in zip((" 0.0 %", " 50.0 %", " 100.0 %"), printed)] == [True] * 3


def test_the_tenth_job_comes_after_the_second(tmp_path, capsys):
    for number in (10, 2, 1):
        evaluated(tmp_path / str(number), f"model-{number}")
    cli.main(["table", str(tmp_path)])
    assert [line.split()[0] for line in rows(capsys)] == ["model-1", "model-2", "model-10"]


def test_evaluations_of_several_folders_are_all_shown(tmp_path, capsys):
    evaluated(tmp_path / "a" / "0", "tiny", 1)
    evaluated(tmp_path / "b" / "0", "tiny", 2)
    cli.main(["table", str(tmp_path / "a"), str(tmp_path / "b")])
    assert len(rows(capsys)) == 2


def test_loss_curves_are_named_below_the_table(tmp_path, capsys):
    evaluated(tmp_path / "0", "tiny")
    plotted(tmp_path / "1")
    cli.main(["table", str(tmp_path)])
    assert rows(capsys)[-1] == f"loss curves: {tmp_path / '1' / 'plots' / 'loss.png'}"


@pytest.mark.parametrize("changes", [{"kind": "train"}, {"status": "failed"}, {"status": "running"}])
def test_what_is_no_finished_evaluation_has_no_row(tmp_path, capsys, changes):
    evaluated(tmp_path / "0", "good")
    evaluated(tmp_path / "1", "other", **changes)
    cli.main(["table", str(tmp_path)])
    assert [line.split()[0] for line in rows(capsys)] == ["good"]


def test_folders_without_an_evaluation_are_an_error_on_one_line(tmp_path, capsys):
    plotted(tmp_path / "0")
    assert cli.main(["table", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: no finished evaluation below {tmp_path}; evaluate.py makes them\n"


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


def test_the_help_of_compare_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--help"])
    assert ended.value.code == 0
    assert "text2sql compare outputs/" in capsys.readouterr().out


def test_the_statistics_are_loaded_by_a_comparison_only():
    code = "import sys; from text2sql import cli; print({'numpy', 'scipy', 'omegaconf'} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize("arguments", [[], ["table"], ["compare", "folder"], ["tabel", "folder"]])
def test_a_command_that_is_not_there_ends_with_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: text2sql" in capsys.readouterr().err
