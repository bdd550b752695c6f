"""A second backbone is one file and one line in the table: it trains, in both stages, and is evaluated."""

import pytest

from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.latents import WAN22
from motion_depth.model import BACKBONES, backbone_kind
from motion_depth.model.wan import Wan
from tests.support.inprocess import must_train, refused
from tests.support.runs import rows
from tests.support.tool_runs import run_evaluate
from tests.support.toy_backbone import TOY, ToyBackbone


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with the second backbone's weights; the line that registers it."""
    monkeypatch.setitem(BACKBONES, "toy", ToyBackbone)
    (tmp_path / "model").mkdir()
    ToyBackbone.write(tmp_path / "model")
    return tmp_path / "model"


def test_a_backbone_is_told_by_its_folder(toy, tiny_wan):
    assert backbone_kind(toy) is ToyBackbone
    assert backbone_kind(tiny_wan) is backbone_kind(None) is Wan


@pytest.mark.parametrize("cached", [True, False])
def test_a_second_backbone_trains_and_is_evaluated(toy, demo_scenes, demo_csv, tmp_path, cached):
    """With sizes and lengths that WAN does not take."""
    data = ["--dataset_base_path", demo_scenes, "--dataset_metadata_path", demo_csv, "--model_base_path", toy]
    clip = ["--height", 48, "--width", 80, "--num_frames", 7, "--mixed_precision", "no"]
    flags = [*data, *clip, "--dataset_num_workers", 0, "--gradient_accumulation_steps", 1, "--max_steps", 2]
    flags += ["--cache_path", tmp_path / "cache"] if cached else []
    must_train("--stage", 1, *flags, "--head_size", "small", "--head_taps", "0.5,1", "--output_path", tmp_path / "1")
    heads = read_checkpoint(tmp_path / "1/final").config["heads"]
    assert (heads["latent_stride"], heads["frames_per_latent"], heads["latent_channels"]) == (8, 2, 6)
    must_train("--stage", 2, *flags, "--heads_checkpoint", tmp_path / "1/final", "--lora_target_modules", "mlp",
                   "--lora_rank", 2, "--output_path", tmp_path / "2")  # fmt: skip
    assert all(row["train/flow_loss"] > 0 for row in rows(tmp_path / "2") if "train/flow_loss" in row)
    found = run_evaluate("--checkpoint", tmp_path / "2/final", *data, "--output", tmp_path / "found", "--device", "cpu",
                         "--noise_levels", 0.1, "--pictures", 1)  # fmt: skip
    assert found["overall"]["0.1"]["epe"] > 0


def test_sizes_follow_the_backbones_layout(toy, demo_scenes, demo_csv, tmp_path):
    flags = ["--dataset_base_path", demo_scenes, "--dataset_metadata_path", demo_csv, "--model_base_path", toy]
    assert "--num_frames: found 6, expected 2k+1: 3, 5, ..., 25" in refused(
        "--stage", 1, *flags, "--num_frames", 6, "--output_path", tmp_path / "out"
    )


@pytest.mark.parametrize("layout", [WAN22, TOY])
def test_a_layouts_numbers_fit_together(layout):
    assert layout.latent_shape(1 + 3 * layout.frames_per_latent, 96, 64)[:2] == (layout.channels, 4)
    f, h, w = layout.token_grid(1 + 3 * layout.frames_per_latent, 96, 64)
    assert (f, h * layout.token_stride, w * layout.token_stride) == (4, 96, 64)
    for frames in range(2, 30):
        longest = layout.longest_clip(frames)
        assert frames - layout.frames_per_latent < longest <= frames
        assert (longest - 1) % layout.frames_per_latent == 0


@pytest.mark.parametrize("value", [0, 4, 6, 48, -3, True, "9", 5.0])
def test_lengths_that_a_clip_cannot_have_are_refused(value):
    with pytest.raises(ValueError, match=r"--num_frames: found .*, expected 4k\+1: 5, 9, ..., 49, ..., 81"):
        WAN22.check_frames(value)
