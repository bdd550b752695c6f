"""The training script in this process: imported once, run many times, as `python train_... FLAGS` would run it. And in
two, for what several processes do."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from accelerate.state import AcceleratorState, GradientState

import train_wan22_ti2v_motion_depth as training
from motion_depth.processes.exits import REFUSED


@dataclass
class Ended:
    """Exit code, and what was written to stdout and stderr."""

    code: int
    out: str
    err: str


def train(*flags: object, **environment: str) -> Ended:
    """Runs the script's `main` on the CPU, offline, in one thread: two wait for each other where others compute."""
    out, err = io.StringIO(), io.StringIO()
    settings = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        mock.patch.dict(os.environ, settings),
        mock.patch.object(sys, "argv", [str(training.__file__), *map(str, flags)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            training.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    torch.set_num_threads(threads)
    return Ended(code, out.getvalue(), err.getvalue())


def must_train(*flags: object, **environment: str) -> Ended:
    """`train`, failing the test with the script's own words if it does not exit with 0."""
    done = train(*flags, **environment)
    assert done.code == 0, done.err
    return done


def expect_refusal(code: int, err: str) -> None:
    """One line says why."""
    assert code == REFUSED, err
    assert "Traceback" not in err
    assert sum("error: " in line for line in err.splitlines()) == 1


def refused(*flags: object, unchanged: Path | None = None) -> str:
    """`train`, which must refuse to begin and leave all below a folder as it was; returns what was said."""
    before = unchanged and snapshot(unchanged)
    done = train(*flags)
    expect_refusal(done.code, done.err)
    assert before == (unchanged and snapshot(unchanged))
    return done.err


def two_processes(*flags: object, folder: Path, program: str = "", **environment: str) -> Ended:
    """A program that changes something and then runs the script, as two processes; it is written into `folder`."""
    probe, root = folder / "probe.py", Path(training.__file__).parent
    probe.write_text(f"{program}\nimport runpy\nrunpy.run_path({training.__file__!r}, run_name='__main__')\n")
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, probe, *map(str, flags)], capture_output=True, text=True, cwd=root,
        env={**os.environ, **settings, "PYTHONPATH": str(root), **environment},
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def at_iteration(monkeypatch, number: int, action: Callable[[dict], dict | None], onwards: bool = False) -> None:
    """Calls `action(losses)` in an iteration of the next run, counted from 1, or from it onwards: other losses, or a
    signal."""
    real, count = training.step_losses, [0]

    def step_losses(*args):
        count[0] += 1
        losses = real(*args)
        now = count[0] >= number if onwards else count[0] == number
        return (now and action(losses)) or losses

    monkeypatch.setattr(training, "step_losses", step_losses)


def nan(losses: dict) -> dict:
    return losses | {"loss": losses["loss"] * torch.nan}
