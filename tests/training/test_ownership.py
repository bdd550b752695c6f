"""One run at a time writes into an output folder: processes that hold it, are killed, or are on another machine."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from motion_depth.training import ownership
from motion_depth.training.ownership import LOCK_FILE, Occupation

ROOT = Path(ownership.__file__).parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from motion_depth.training import ownership
ownership.BEAT = 0.05
if "elsewhere" in sys.argv:
    ownership._system = lambda: "another machine's"
if "unlocked" in sys.argv:
    ownership._lock = lambda file: False
with ownership.Occupation(Path(sys.argv[1]), print) as held:
    held.begin()
    if "forks" in sys.argv and os.fork() == 0:
        time.sleep(600)
    print("held", flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds a folder."""
    started = []

    def start(*how: str, folder: Path = tmp_path / "out") -> subprocess.Popen:
        started.append(
            subprocess.Popen([sys.executable, "-c", HOLDER, folder, *how], stdin=subprocess.PIPE, cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, start_new_session=True)
        )  # fmt: skip
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ownership, "SILENCE", 1.0)
    monkeypatch.setattr(ownership, "LOOK_EVERY", 0.05)


def attempt(folder: Path, expected: str | None = None) -> list[str]:
    """Takes the folder, or is refused with an error that has `expected` in it; returns what was said while waiting."""
    said: list[str] = []
    with Occupation(folder, said.append) as mine:
        if expected is None:
            mine.begin()
            mine.require()
            assert json.loads((folder / LOCK_FILE).read_bytes())["pid"] == os.getpid()
        else:
            with pytest.raises(ValueError, match=re.escape(expected)):
                mine.begin()
    return said


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_a_folder_that_is_held_is_refused_with_who_holds_it_and_free_when_that_ends(tmp_path, holder):
    process, out = holder(), tmp_path / "out"
    assert (
        attempt(out, f"--output_path {out}: another run (process {process.pid} on {os.uname().nodename}, since 20")
        == []
    )
    (tmp_path / "link").symlink_to("out")
    for name in ("out", "link"):
        attempt(tmp_path / name, "writes there; wait until it has ended, or choose another folder")
    attempt(tmp_path / "other")
    process.communicate("\n", timeout=30)
    assert not out.exists()  # made by it, and empty
    attempt(out)


@pytest.mark.parametrize("how", [[], ["forks"]])
def test_a_killed_holder_leaves_nothing_that_hinders(tmp_path, holder, how):
    """Also if a process that it has forked lives on, such as a loader's worker for a few seconds."""
    end(holder(*how))
    assert (tmp_path / "out" / LOCK_FILE).exists()
    assert attempt(tmp_path / "out") == []
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_a_holder_that_was_killed_before_it_could_write_hinders_nobody(tmp_path):
    (tmp_path / LOCK_FILE).touch()
    attempt(tmp_path)
    assert tmp_path.exists()


def test_a_holder_on_another_machine_is_known_by_its_signs_of_life(tmp_path, holder):
    """Where locks do not reach across machines: both processes believe that they have locked the file."""
    process = holder("elsewhere", "unlocked")
    (said,) = attempt(tmp_path / "out", f"process {process.pid} ")
    assert "waiting up to 1 seconds for a sign of life" in said
    end(process)
    assert len(attempt(tmp_path / "out")) == 1


def test_a_holder_on_this_machine_where_files_cannot_be_locked(tmp_path, holder, monkeypatch):
    process = holder("unlocked")
    monkeypatch.setattr(ownership, "_lock", lambda file: False)
    attempt(tmp_path / "out", f"process {process.pid} ")
    end(process)
    attempt(tmp_path / "out")


def test_locks_that_reach_across_machines_need_no_waiting(tmp_path, holder):
    holder("elsewhere")
    assert attempt(tmp_path / "out", "another run") == []


def test_a_run_that_was_taken_for_dead_writes_nothing_more(tmp_path):
    with Occupation(tmp_path, print) as mine:
        mine.begin()
        about = json.loads((tmp_path / LOCK_FILE).read_bytes()) | {"system": "another machine's", "host": "node7"}
        (tmp_path / LOCK_FILE).write_text(json.dumps(about))
        with pytest.raises(ValueError, match=r"was taken over by another run .* on node7"):
            mine.require()
    assert (tmp_path / LOCK_FILE).exists()  # it is the other's


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    attempt(tmp_path / "file/out", f"--output_path {tmp_path / 'file/out'}: cannot be written (Not a directory)")


def test_what_was_there_stays_and_what_was_made_goes_if_it_is_empty(tmp_path):
    attempt(tmp_path / "a/b/c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with Occupation(tmp_path / "a/b/c", print) as mine:
        mine.begin()
        (tmp_path / "a/b/notes.txt").touch()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["notes.txt"]


def test_those_that_begin_at_the_same_moment(tmp_path):
    """Many rounds of processes that race for a folder, free or left by one that was killed: exactly one gets it."""
    context = multiprocessing.get_context("fork")
    together, winners = context.Barrier(3), context.Queue()

    def run() -> None:
        for turn in range(30):
            with Occupation(tmp_path / str(turn), print) as mine:
                together.wait()
                with contextlib.suppress(ValueError):
                    mine.begin()
                    winners.put(turn)
                together.wait()

    for turn in range(0, 30, 2):
        (tmp_path / str(turn)).mkdir()
        (tmp_path / str(turn) / LOCK_FILE).write_text(json.dumps({"pid": 1, "system": ownership._system()}))
    runs = [context.Process(target=run) for _ in range(3)]
    for each in runs:
        each.start()
    assert sorted(winners.get(timeout=60) for _ in range(30)) == list(range(30))
    for each in runs:
        each.join()
    assert winners.empty()
