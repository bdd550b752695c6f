"""tools/show_losses.py: first and last losses of a run, and its errors."""

import json
from pathlib import Path

import pytest

from tools import show_losses


def write_log(run: Path, rows: list[dict]) -> Path:
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_first_and_last_are_means_over_a_tenth_of_the_iterations(tmp_path, capsys, monkeypatch):
    rows = [{"step": step, "loss": float(step), "motion_loss": 0.5} for step in range(2, 101, 2)]
    rows.insert(5, {"step": 10, "group": "val", "loss": 1e6})
    run = write_log(tmp_path / "run", rows)
    monkeypatch.setattr("sys.argv", ["show_losses.py", str(run)])
    assert show_losses.main() == 0
    header, names, loss, motion = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (header, names) == (["iterations", "first", "last"], ["run"])
    assert loss == [str(run), "loss", "100", "6.0000", "96.0000"]  # means of 2, 4, 6, 8, 10 and of 92, 94, 96, 98, 100
    assert motion == ["motion", "loss", "100", "0.5000", "0.5000"]


def test_a_run_of_one_row_and_a_line_that_is_being_written(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 40, "loss": 3}\n{"step": 41, "lo')
    assert show_losses.first_and_last(tmp_path).to_dict("records") == [{"iterations": 40, "first": 3, "last": 3}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no such file; give the OUTPUT_PATH of a run"),
        ("", "holds no losses yet"),
        ('{"step": 1, "loss": 1}\n{"st\n', "a line is not JSON"),
    ],
)
def test_a_log_that_cannot_be_read_is_named(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        show_losses.first_and_last(tmp_path)
    assert str(tmp_path / "log.jsonl") in str(caught.value)
