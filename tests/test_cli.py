"""The text2sql command: evaluations side by side."""

import json

import pytest

from text2sql import cli, evaluation
from text2sql.example import Example, Score, Verdict


def evaluated(folder, label, correct=1, total=2, kind="evaluate", status="finished"):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": kind, "label": label, "status": status}))
    scores = [Score(Verdict.MATCH if number < correct else Verdict.MISMATCH) for number in range(total)]
    examples = [Example(str(number), "?", "SELECT 1", "d") for number in range(total)]
    (folder / "metrics.json").write_text(json.dumps(evaluation.metrics(examples, scores, lambda _: "easy")))


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


@pytest.mark.parametrize("arguments", [[], ["table"], ["tabel", "folder"]])
def test_a_command_that_is_not_there_ends_with_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: text2sql" in capsys.readouterr().err
