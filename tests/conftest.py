"""Fixtures that several test files share: demo scenes, a tiny model, finished runs on them, a small DiT in memory."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, tap_blocks
from motion_depth.model.wan import Wan, WanDit
from motion_depth.pictures.media import read_picture
from tests.no_kernels import NoKernels
from tests.support.dits import SMALL as SMALL_DIT
from tests.support.dits import frozen_dit
from tests.support.quantities import statistics_of
from tests.support.run_inputs import Inputs, finished_run
from tests.support.runs import ROOT, SCRIPT, SMALL, SMALL_STAGE_2, must_run
from tests.support.tool_runs import SIZE, make_checkpoint

DEMO_SCENES = ("ball_collide", "ball_ramp", "duck_and_domino")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def demo_scenes(tmp_path_factory) -> Path:
    """Three MuJoCo scenes of 96 x 96, 18 frames, with a metadata CSV beside them."""
    folder = tmp_path_factory.mktemp("demo") / "scenes"
    must_run(ROOT / "tools/demo/make_scenes.py", "--output", folder, "--height", 96, "--width", 96, "--num_frames", 18,
             "--scenes", *DEMO_SCENES)  # fmt: skip
    must_run(ROOT / "tools/make_metadata.py", "--dataset_base_path", folder, "--output", folder.parent / "demo.csv")
    return folder


@pytest.fixture(scope="session")
def demo_csv(demo_scenes) -> Path:
    return demo_scenes.parent / "demo.csv"


@pytest.fixture(scope="session")
def tiny_wan(demo_scenes) -> Path:
    """Files of a tiny model, its VAE fitted on the demo scenes."""
    folder = demo_scenes.parent / "tiny_wan"
    must_run(ROOT / "tools/demo/make_tiny_wan.py", "--dataset_base_path", demo_scenes, "--output", folder)
    return folder


@pytest.fixture(scope="session")
def data_flags(demo_scenes, demo_csv, tiny_wan) -> list:
    return ["--dataset_base_path", demo_scenes, "--dataset_metadata_path", demo_csv, "--model_base_path", tiny_wan]


@pytest.fixture(scope="session")
def stage1(data_flags, tmp_path_factory) -> Path:
    """A finished stage-1 run of 6 iterations with checkpoints at 4 (3 is due within an update) and 6."""
    output = tmp_path_factory.mktemp("runs") / "stage1"
    must_run(SCRIPT, "--stage", 1, *data_flags, *SMALL, "--output_path", output, "--max_steps", 6, "--save_steps", 3,
             "--use_wandb")  # fmt: skip
    return output


@pytest.fixture(scope="session")
def stage2(data_flags, stage1) -> Path:
    """A finished stage-2 run of 4 iterations that starts from `stage1`."""
    output = stage1.parent / "stage2"
    must_run(SCRIPT, "--stage", 2, *data_flags, *SMALL_STAGE_2,
             "--heads_checkpoint", stage1 / "final", "--output_path", output, "--max_steps", 4, "--save_steps", 2,
             "--lora_rank", 4)  # fmt: skip
    return output


@pytest.fixture(scope="session")
def tiny_backbone(tiny_wan) -> Wan:
    return Wan.in_folder(tiny_wan)


@pytest.fixture(scope="session")
def lora_checkpoint(tiny_backbone, tmp_path_factory) -> Path:
    """See `make_checkpoint`."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "final", tiny_backbone)


@pytest.fixture(scope="session")
def first_frame(demo_scenes) -> Image.Image:
    """A picture of the size of `lora_checkpoint`."""
    return read_picture(sorted(demo_scenes.rglob("rgb/*.png"))[0]).resize((SIZE, SIZE))


@pytest.fixture
def small_dit() -> WanDit:
    """A DiT with TI2V's flags, 6 blocks of width 48, random weights, frozen."""
    return frozen_dit(SMALL_DIT)


@pytest.fixture
def small_heads(small_dit) -> MotionDepthHeads:
    """Small dense heads for `small_dit`."""
    torch.manual_seed(1)
    config = HeadConfig(small_dit.dim, tap_blocks(len(small_dit.blocks), (0.33, 0.67)), **HEAD_SIZES["small"])
    return MotionDepthHeads(config, statistics_of(2.0, 1.5, 0.5))


@pytest.fixture(scope="session")
def no_kernels(tmp_path_factory) -> NoKernels:
    """Runs programs that see a GPU, whose kernels do nothing."""
    return NoKernels(tmp_path_factory.mktemp("no_kernels"))


@pytest.fixture(scope="session")
def whole(tiny_wan, tmp_path_factory) -> Inputs:
    """Inputs of the training script with a finished run, to be read only."""
    return finished_run(tmp_path_factory.mktemp("inputs") / "whole", tiny_wan)


@pytest.fixture
def inputs(whole, tmp_path) -> Inputs:
    """A copy of them, to be changed."""
    return whole.copy(tmp_path / "inputs")
