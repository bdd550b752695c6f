"""Running the project's programs as a user does: as processes, offline and on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from motion_depth.checkpoints.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "train_wan22_ti2v_motion_depth.py"

# Flags of a run on the tiny model that takes seconds.
SMALL_STAGE_2 = [
    *("--height", 96, "--width", 96, "--num_frames", 5, "--mixed_precision", "no", "--dataset_num_workers", 0),
    *("--dataset_repeat", 4, "--gradient_accumulation_steps", 2, "--lr_warmup_steps", 0),
]
SMALL = [*SMALL_STAGE_2, "--head_size", "small"]


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder but the optimizer's state."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.stem != "training_state")
    return {f"{path.stem}/{name}": value for path in files for name, value in load_file(path).items()}


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def step_of(folder: Path) -> int:
    return read_checkpoint(folder).config["training"]["step"]
