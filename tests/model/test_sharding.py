"""The same clips make the same update however they are spread: accumulated, in one batch, or over two processes.

The processes are started as users start them, by a stage script with an accelerate configuration of configs/.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from motion_depth.model.sharding import REQUEST, take_request
from tests.support.inprocess import must_train
from tests.support.runs import ROOT, SMALL_STAGE_2, rows, weights

UPDATES, CLIPS = 2, 2  # clips of each update


@pytest.fixture(scope="module")
def flags(data_flags, stage1, tmp_path_factory) -> list:
    cache = tmp_path_factory.mktemp("spread") / "cache"
    return ["--stage", 2, *data_flags, *SMALL_STAGE_2, "--heads_checkpoint", stage1 / "final", "--lora_rank", 4,
            "--cache_path", cache, "--save_steps", 0]  # fmt: skip


@pytest.fixture(scope="module")
def accumulated(flags, tmp_path_factory) -> Path:
    """One process, one clip in each forward, two forwards for each update."""
    output = tmp_path_factory.mktemp("spread") / "accumulated"
    must_train(*flags, "--output_path", output, "--max_steps", UPDATES * CLIPS)
    return output


def assert_same_training(output: Path, expected: Path, start: Path) -> None:
    """Losses to float32's precision; weights by how far they moved, because AdamW blows up the rounding of gradients
    that are near zero."""
    ours, theirs = ([row["loss"] for row in rows(folder)] for folder in (output, expected))
    assert len(ours) == UPDATES
    assert ours == pytest.approx(theirs, rel=1e-5)
    found, wanted, before = weights(output / "final"), weights(expected / "final"), weights(start / "final")
    assert found.keys() == wanted.keys()
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    moved = sum(float((wanted[name] - before[name]).square().sum()) for name in before)
    assert math.sqrt(apart / moved) < 0.01


def test_a_batch_is_one_forward_that_equals_accumulation(flags, accumulated, stage1, tmp_path, monkeypatch):
    sizes = []
    forward = torch.nn.Module.__call__
    monkeypatch.setattr(
        "motion_depth.model.motion_depth.MotionDepthModel.__call__",
        lambda self, *args, **kw: sizes.append(len(args[0])) or forward(self, *args, **kw),
    )
    one = ["--batch_size", CLIPS, "--gradient_accumulation_steps", 1, "--max_steps", UPDATES]
    must_train(*flags, *one, "--output_path", tmp_path / "out")
    assert sizes == [CLIPS] * UPDATES
    assert_same_training(tmp_path / "out", accumulated, stage1)


@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_two_processes_equal_accumulation(flags, data_flags, accumulated, stage1, tmp_path, config):
    """The stage script takes settings from the environment; flags that come last count."""
    more = ["--gradient_accumulation_steps", 1, "--max_steps", UPDATES, "--output_path", tmp_path / "out"]
    settings = {
        "ACCELERATE_CONFIG": str(ROOT / f"configs/{config}.yaml"), "NUM_PROCESSES": "2", "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "USE_WANDB": "0", "PYTHON": sys.executable, "MODEL_BASE_PATH": str(data_flags[-1]),
        "LEARNING_RATE": "1e-4",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", ROOT / "train_wan22_stage2_lora.sh", *map(str, [*flags[2:], *more])],
        capture_output=True,
        text=True,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on 2 x cpu" in done.stdout
    assert ("FSDP: " in done.stdout) == (config == "fsdp")
    assert_same_training(tmp_path / "out", accumulated, stage1)


def test_without_a_request_nothing_is_sharded(monkeypatch):
    monkeypatch.delenv(REQUEST, raising=False)
    assert take_request() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version 1 is not supported; set fsdp_version: 2"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing is True.*--gradient_checkpointing"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading is True"),
        ({"WORLD_SIZE": "1"}, "only one"),
    ],
)
def test_settings_that_are_not_carried_out_are_refused(monkeypatch, settings, message):
    for name, value in ({REQUEST: "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"} | settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        take_request()
