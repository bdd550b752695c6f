"""Progress bars: what a log file gets of them."""

import re
import sys
import time

from motion_depth import progress
from motion_depth.progress import ProgressBar
from tests.support.runs import ROOT


def test_a_log_file_gets_one_line_when_a_short_loop_is_done(capsys):
    """Also with what forces tqdm to show itself: postfixes and messages."""
    with ProgressBar(total=300, unit="it") as bar:
        for number in range(300):
            bar.set_postfix({"loss": f"{number}"})
            if number % 100 == 0:
                ProgressBar.write(f"message {number}", file=sys.stderr)
            bar.update()
    found = capsys.readouterr().err
    *messages, last = found.splitlines()
    assert messages == ["message 0", "message 100", "message 200"]
    assert re.match(r"100%\|.*\| 300/300 \[.*it/s, loss=299\]$", last)
    assert found.endswith("]\n")
    assert "\r" not in found


def test_a_log_file_gets_a_line_at_each_interval(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.3)
    begin = time.monotonic()
    for _ in ProgressBar(range(100), desc="reading"):
        time.sleep(0.01)
    most = (time.monotonic() - begin) / 0.3 + 1
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= most
    assert all(line.startswith("reading: ") for line in lines)


def test_the_last_line_comes_once(capsys, monkeypatch):
    """Also where the interval ends with the last step; with other numbers it is another line."""
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    list(ProgressBar(range(3)))
    steps = [line.split("|")[2].split("[")[0].strip() for line in capsys.readouterr().err.splitlines()]
    assert steps == ["0/3", "1/3", "2/3", "3/3"]
    with ProgressBar(total=1) as bar:
        bar.update()
        bar.set_postfix({"loss": "1"}, refresh=False)
    assert capsys.readouterr().err.splitlines()[-1].endswith("loss=1]")


def test_what_is_not_to_stay_or_not_shown_leaves_nothing(capsys):
    list(ProgressBar(range(5), leave=False))
    list(ProgressBar(range(5), disable=True))
    ProgressBar(range(5), leave=False, delay=5).close()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_line_that_moves(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(ProgressBar(range(3)))
    found = capsys.readouterr().err
    assert found.count("\r") > 1
    assert found.count("\n") == 1


def test_every_bar_is_this_one():
    files = [*(ROOT / "motion_depth").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *ROOT.glob("*.py")]
    using = {path.name for path in files if re.search(r"^\s*(from|import) tqdm", path.read_text(), re.MULTILINE)}
    assert using == {"progress.py"}
