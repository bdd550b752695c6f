"""Running the project's programs as a user does: as processes, offline and on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "train_wan22_ti2v_motion_depth.py"


def run_python(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs a file of the project with this interpreter, offline and on the CPU."""
    settings = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **settings, **environment},
    )


def must_run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """`run_python`, failing the test with the program's own words if it does not exit with 0."""
    done = run_python(*arguments, **environment)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done
