"""Runs that are interrupted, numbers that go wrong, one process of two that fails: the training script itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_wan22_ti2v_motion_depth as training
from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.processes.exits import NOT_FINITE, REFUSED, STOPPED
from motion_depth.training.resuming import RUN_FILE
from tests.support.inprocess import Ended, at_iteration, must_train, nan, train, two_processes
from tests.support.run_inputs import plain_flags
from tests.support.runs import SCRIPT, weights

SECRET = "0123456789abcdef0123456789abcdef01234567"
SPEED = ("clips_per_s", "data_wait")


@pytest.fixture(scope="module")
def shared(tiny_wan, tmp_path_factory) -> list:
    return [
        *plain_flags(tmp_path_factory.mktemp("reliability"), tiny_wan),
        *("--gradient_accumulation_steps", 2, "--max_steps", 7, "--save_steps", 0),
        *("--lr_warmup_steps", 3, "--lr_scheduler", "cosine"),
    ]


@pytest.fixture(scope="module")
def stages(shared, tmp_path_factory) -> dict[int, tuple[list, Path]]:
    """By stage: its flags, and a run that nothing interrupted."""
    root = tmp_path_factory.mktemp("whole")
    found = {}
    for stage, more in (1, ["--head_size", "small"]), (2, ["--lora_rank", 4, "--heads_checkpoint", root / "1/final"]):
        flags, output = ["--stage", stage, *shared, *more], root / str(stage)
        must_train(*flags, "--output_path", output)
        found[stage] = flags, output
    return found


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def log(output: Path) -> list[dict]:
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in SPEED} for row in rows]


@pytest.mark.parametrize(("stage", "number"), [(1, 3), (1, 4), (2, 3)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(stages, stage, number, tmp_path, monkeypatch):
    """In the middle of an update (3), which is finished first, and at the end of one (4), while the learning rate
    changes; weights and log are equal."""
    flags, whole = stages[stage]
    with monkeypatch.context() as patch:
        at_iteration(patch, number, lambda _: os.kill(os.getpid(), signal.SIGUSR1))
        done = train(*flags, "--output_path", tmp_path / "out")
    assert done.code == STOPPED, done.err
    assert "stopped by SIGUSR1 after iteration 4; step-4 is saved" in done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.jsonl", "step-4", RUN_FILE]
    must_train(*flags, "--output_path", tmp_path / "out", "--resume", "auto")
    assert same(tmp_path / "out/final", whole / "final")
    assert log(tmp_path / "out") == log(whole)


def test_the_time_limit_saves_too(stages, tmp_path):
    done = train(*stages[1][0], "--output_path", tmp_path / "out", "--max_hours", 1e-9)
    assert done.code == STOPPED
    assert "--max_hours 1e-09 are over after iteration 2; step-2 is saved" in done.err
    read_checkpoint(tmp_path / "out/step-2")


def test_a_run_says_when_much_of_it_is_warm_up(stages, tmp_path):
    flags = [*stages[1][0], "--output_path", tmp_path / "out", "--max_steps", 1]
    warning = "warning: --lr_warmup_steps 3: 100% of the run's 1 optimizer updates are warm-up; a tenth would be 0\n"
    assert warning in train(*flags).out
    assert "warm-up" not in train(*flags, "--output_path", tmp_path / "none", "--lr_warmup_steps", 0).out


def test_a_signal_before_the_first_iteration_ends_at_once(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "check_before_reading", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = train(*stages[1][0], "--output_path", tmp_path / "out")
    assert done.code == STOPPED
    assert done.err == "stopped by SIGTERM before the first iteration\n"
    assert not (tmp_path / "out").exists()


def test_a_second_signal_ends_a_process_at_once_even_while_it_waits(tmp_path):
    """Two signals at the same time count as one, as a launcher sends them."""
    program = (
        "import time, sys, threading\n"
        "from motion_depth.processes.signals import Stopping\n"
        "with Stopping() as stopping:\n"
        "    stopping.between_iterations()\n"
        "    print('ready', flush=True)\n"
        "    while stopping.agreed() is None: time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=SCRIPT.parent
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    time.sleep(2.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == "SIGTERM again: gone without saving\n"


def test_an_update_with_nan_is_skipped_named_and_resumed_exactly(stages, tmp_path, monkeypatch):
    """NaN in iteration 3, once in one go and once with a signal at that moment; the update is skipped first."""
    flags, whole = stages[1]
    with monkeypatch.context() as patch:
        at_iteration(patch, 3, nan)
        must_train(*flags, "--output_path", tmp_path / "one")
    with monkeypatch.context() as patch:
        at_iteration(patch, 3, lambda losses: os.kill(os.getpid(), signal.SIGTERM) or nan(losses))
        assert train(*flags, "--output_path", tmp_path / "two").code == STOPPED
    must_train(*flags, "--output_path", tmp_path / "two", "--resume", "auto")
    (event,) = [row for row in log(tmp_path / "one") if row.get("group") == "health"]
    assert event["step"] == 4
    assert event["skipped_updates"] == 1
    assert "update skipped, the loss is not finite for clip 2 (scene " in event["message"]
    assert [row["step"] for row in log(tmp_path / "one") if "group" not in row] == [2, 6, 7]
    assert same(tmp_path / "one/final", tmp_path / "two/final")
    assert log(tmp_path / "one") == log(tmp_path / "two")
    assert not same(tmp_path / "one/final", whole / "final")
    assert all(value.isfinite().all() for value in weights(tmp_path / "one/final").values())


def test_too_many_bad_updates_end_the_run_with_the_weights_from_before(stages, tmp_path, monkeypatch):
    flags = [*stages[1][0], "--output_path", tmp_path / "out", "--max_bad_steps", 2, "--save_steps", 2]
    real, count = training.step_losses, [0]

    def step_losses(*args):
        count[0] += 1
        return nan(real(*args)) if count[0] > 2 else real(*args)

    monkeypatch.setattr(training, "step_losses", step_losses)
    done = train(*flags)
    assert done.code == NOT_FINITE
    assert "error: 2 updates in a row had inf or NaN in them" in done.err
    assert "Traceback" not in done.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*-*")) == ["step-2", "step-4", "step-6"]
    assert same(tmp_path / "out/step-2", tmp_path / "out/step-6")
    assert read_checkpoint(tmp_path / "out/step-6").config["training"]["health"]["in_row"] == 2


def both(stages, folder: Path, action: str = "", *flags: object, **environment: str) -> Ended:
    """Two processes train; `action` is what rank 1 does before each of its batches, `count` of them so far."""
    program = (
        "import os, signal, time\nimport motion_depth.training.loader as loader\nreal, count = loader.make_batch, []\n"
        "def refuse(): raise ValueError('0007.npy: empty')\n"
        "def make_batch(*args):\n"
        "    count.append(1)\n"
        f"    if os.environ['RANK'] == '1': {action or 'pass'}\n"
        "    return real(*args)\n"
        "loader.make_batch = make_batch\n"
    )
    output = ["--output_path", folder / "out"]
    done = two_processes(*stages[1][0], *output, *flags, program=program, folder=folder, **environment)
    assert done.code != 0
    return done


def test_one_failing_process_ends_the_job_with_its_own_words(stages, tmp_path):
    """Rank 1 cannot read a clip in iteration 3; rank 0 waits for it in an all-reduce and must not bury that."""
    done = both(stages, tmp_path, "len(count) == 3 and refuse()")
    assert "error: rank 1: 0007.npy: empty" in done.err
    mine = done.err[: done.err.find("ChildFailedError")]
    assert "most recent call last" not in mine[: mine.find("error: rank 1")]
    assert f"exitcode  : {REFUSED}" in done.err


def test_two_processes_that_know_nothing_of_each_other_do_not_train(stages, tmp_path):
    """accelerate makes no group of CPU processes unless it is told to; each would write into the same folder."""
    done = both(stages, tmp_path, ACCELERATE_USE_CPU="false")
    assert f"exitcode  : {REFUSED}" in done.err
    assert "error: WORLD_SIZE=2 processes were started, but accelerate made groups of 1" in done.err
    assert not (tmp_path / "out").exists()


def test_a_signal_to_one_process_saves_and_ends_all_of_them(stages, tmp_path):
    """Rank 1 gets it in iteration 1; both end the update and stop, and the checkpoint is whole."""
    done = both(stages, tmp_path, "len(count) == 1 and os.kill(os.getpid(), signal.SIGUSR1)")
    assert done.err.count("stopped by SIGUSR1 after iteration 2; step-2 is saved") == 1
    assert f"exitcode  : {STOPPED}" in done.err
    assert read_checkpoint(tmp_path / "out/step-2").config["training"]["processes"] == 2
    assert not (tmp_path / "out/final").exists()


def test_a_process_that_hangs_is_not_waited_for_longer_than_the_timeout(stages, tmp_path):
    done = both(stages, tmp_path, "time.sleep(3600)", "--timeout_minutes", 0.1)
    assert "rank 0: ends because another process has ended" in done.err


def test_secrets_reach_no_file(stages, tmp_path):
    """Keys of wandb and of the hub, from the environment, with a real (offline) wandb run."""
    output = tmp_path / "out"
    done = must_train(*stages[1][0], "--output_path", output, "--max_steps", 2, "--save_steps", 1, "--use_wandb",
                 WANDB_API_KEY=SECRET, HF_TOKEN=f"hf_{SECRET}", WANDB_SILENT="true")  # fmt: skip
    files = [path for path in output.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [str(path) for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in done.out + done.err


def test_nothing_in_the_project_unpickles_a_file():
    calls = (
        r"(?<![\w.])(torch\.load\((?!.*weights_only=True)|(pickle\.loads?|yaml\.load|eval|exec)\()"
        r"|allow_pickle=True|weights_only=False"
    )
    sources = [SCRIPT, *(SCRIPT.parent / "motion_depth").rglob("*.py"), *(SCRIPT.parent / "tools").rglob("*.py")]
    assert len(sources) > 40
    assert not [f"{path.name}: {found[0]}" for path in sources if (found := re.search(calls, path.read_text()))]
