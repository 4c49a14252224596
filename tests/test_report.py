"""Pictures of a run from the files in its folder."""

import json

import pytest

from text2sql import report

TRAINING = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]
VALIDATION = [{"step": 2, "epoch": 1.0, "eval_loss": 1.5}]
OTHER = [{"step": 2, "epoch": 1.0, "train_runtime": 3.0}]


@pytest.fixture
def run(tmp_path):
    stamp = {"fingerprint": {"model": "someone/tiny"}, "phase": 1, "data": {"name": "gretel"}}
    (tmp_path / "run.json").write_text(json.dumps(stamp))
    return tmp_path


def logged(run, rows):
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "rows",
    [TRAINING + VALIDATION + OTHER, TRAINING, VALIDATION, TRAINING[:1]],
    ids=["all", "training only", "validation only", "one step"],
)
def test_losses_are_drawn_as_a_png(run, rows):
    logged(run, rows)
    path = report.plot_losses(run)
    assert path == run / "plots" / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("rows", [[], OTHER], ids=["nothing", "no losses"])
def test_without_losses_nothing_is_drawn(run, rows):
    logged(run, rows)
    assert report.plot_losses(run) is None
    assert not (run / "plots").exists()


def test_without_a_history_nothing_is_drawn(run):
    assert report.plot_losses(run) is None


def test_a_picture_is_drawn_anew(run):
    logged(run, TRAINING)
    first = report.plot_losses(run).read_bytes()
    logged(run, TRAINING + VALIDATION)
    assert report.plot_losses(run).read_bytes() != first


def test_curves_hold_the_logged_points_and_the_title_names_the_run(run, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    logged(run, TRAINING + VALIDATION)
    report.plot_losses(run)
    (axes,) = drawn[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "training": [[1, 2.0], [2, 1.0]],
        "validation": [[2, 1.5]],
    }
    assert axes.get_title() == "tiny, phase 1, gretel"
