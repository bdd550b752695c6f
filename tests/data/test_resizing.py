"""Scaling and cutting to a clip's size."""

import pytest
import torch

from motion_depth.data.motion import cover_crop
from tests.data.test_motion import grid, shifted

SIZES = [
    ((96, 160), (64, 64)),
    ((160, 96), (64, 96)),
    ((50, 70), (64, 64)),
    ((480, 480), (96, 96)),
    ((37, 91), (32, 64)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_nearest_takes_the_pixel_that_holds_the_centre(source, target):
    crop = cover_crop(source, target)
    assert min(resized - size for resized, size in zip(crop.resized, target, strict=True)) == 0
    chosen = crop.nearest(grid(*source))
    assert chosen.shape == (2, *target)
    ratio = torch.tensor([source[1] / crop.resized[1], source[0] / crop.resized[0]])[:, None, None]
    start = torch.tensor([crop.left, crop.top])[:, None, None]
    centre = (grid(*target) + start + 0.5) * ratio - 0.5
    assert (chosen - centre).abs().max() <= 0.5 + 1e-4


def test_the_same_size_is_left_alone():
    image = torch.rand(3, 32, 64)
    assert cover_crop((32, 64), (32, 64)).nearest(image) is image


def test_motion_scales_x_by_the_width_and_y_by_the_height():
    crop = cover_crop((33, 100), (64, 64))
    assert crop.resized == (64, 194)
    flow, valid = crop.motion(shifted(1.0, -1.0, 33, 100), torch.ones(33, 100, dtype=torch.bool))
    torch.testing.assert_close(flow[:, 10, 10], torch.tensor([1.94, -64 / 33]))
    assert valid[2:, :62].all()


def test_motion_that_leaves_the_cut_picture_is_invalid():
    valid = torch.ones(32, 96, dtype=torch.bool)
    valid[5, 40] = False
    flow, cut_valid = cover_crop((32, 96), (32, 32)).motion(shifted(-3.0, 0.0, 32, 96), valid)
    assert not cut_valid[:, :3].any()
    assert not cut_valid[5, 40 - 32]
    assert cut_valid.sum() == 32 * 29 - 1
    assert torch.equal(flow[0], torch.where(cut_valid, -3.0, 0.0))


def test_scaling_a_rotation_scales_its_vectors_with_the_picture():
    source = grid(96, 160) - torch.tensor([79.5, 47.5])[:, None, None]
    flow = torch.stack([-source[1], source[0]]) * 0.05
    crop = cover_crop((96, 160), (192, 192))
    scaled, valid = crop.motion(flow, torch.ones(96, 160, dtype=torch.bool))
    target = grid(192, 192) - 95.5
    expected = torch.stack([-target[1], target[0]]) * 0.05
    assert valid.float().mean() > 0.8
    assert (scaled - expected)[:, valid].abs().max() <= 0.05 * 0.5 * 2 + 1e-4  # half a pixel of the source
