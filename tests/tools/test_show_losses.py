"""tools/show_losses.py: first and last losses of a run, and its errors."""

import json
from pathlib import Path

import pytest

from tools import show_losses


def write_log(run: Path, rows: list[dict]) -> Path:
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_first_and_last_are_means_over_a_tenth_of_the_iterations(tmp_path, capsys):
    rows = [{"step": step, "loss": float(step), "motion_loss": 0.5} for step in range(2, 101, 2)]
    rows.insert(5, {"step": 10, "group": "val", "loss": 1e6})
    run = write_log(tmp_path / "run", rows)
    show_losses.print_table([run])
    header, loss, motion = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["run", "iterations", "first", "last"]
    assert loss == [str(run), "100", "loss", "6.0000", "96.0000"]  # means of 2, 4, 6, 8, 10 and of 92, 94, 96, 98, 100
    assert motion == ["motion", "loss", "0.5000", "0.5000"]


def test_a_run_of_one_row(tmp_path):
    assert show_losses.first_and_last([{"step": 40, "loss": 3.0}], "loss") == (3.0, 3.0)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert show_losses.read_losses(tmp_path) == [{"step": 1, "loss": 2}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no such file; give the OUTPUT_PATH of a run"),
        ("", "holds no losses yet"),
        ('{"step": 1, "loss": 1}\n{"st\n', "line 2 is not JSON"),
    ],
)
def test_a_log_that_cannot_be_read_is_named(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        show_losses.read_losses(tmp_path)
    assert str(tmp_path / "log.jsonl") in str(caught.value)
