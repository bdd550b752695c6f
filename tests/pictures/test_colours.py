"""Colours depend on the value and the scale alone; scales follow what is valid."""

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from motion_depth.pictures import colours as module
from motion_depth.pictures.colours import (
    NO_VALUE,
    Maps,
    colour_depth,
    colour_error,
    colour_motion,
    depth_range,
    motion_range,
)
from tests.support.panel_maps import moving_square, vectors


@pytest.fixture
def truth() -> Maps:
    return moving_square()


# ---------------------------------------------------------------------------------------------- colours


def test_a_vector_has_the_same_colour_whatever_else_is_in_the_picture():
    generator = torch.Generator().manual_seed(0)
    motion = 5 * torch.randn(1, 2, 13, 17, generator=generator)
    together = colour_motion(motion, 8.0)[0]
    beside_faster = colour_motion(torch.cat([motion, torch.full_like(motion, 90.0)]), 8.0)[0]
    alone = [colour_motion(motion[:, :, y : y + 1, x : x + 1], 8.0)[0, 0, 0] for y, x in ((0, 0), (5, 9), (12, 16))]
    assert (beside_faster == together).all()
    assert (np.stack(alone) == together[[0, 5, 12], [0, 9, 16]]).all()


def test_motion_has_the_colours_of_torchvision():
    motion = vectors((3.0, 4.0), (-5.0, 0.0), (1.0, -1.0), (0.0, 0.0))  # the longest is 5 pixels
    expected = flow_to_image(motion)[0].permute(1, 2, 0).numpy()
    assert abs(colour_motion(motion, 5.0)[0].astype(int) - expected).max() <= 1


def test_no_motion_is_white_and_speed_saturates():
    colours = colour_motion(vectors((0.0, 0.0), (3.0, 0.0), (6.0, 0.0), (600.0, 0.0)), 6.0)[0, 0]
    assert (colours[0] == 255).all()
    assert (colours[1] != colours[2]).any()
    assert (colours[3] == colours[2]).all()


def test_negative_zero_has_the_colour_of_zero():
    colours = colour_motion(vectors((5.0, 0.0), (5.0, -0.0)), 6.0)[0, 0]
    assert (colours[0] == colours[1]).all()


def test_depth_is_logarithmic_and_saturates():
    colours = colour_depth(torch.tensor([[[0.5, 1.0, 4.0, 16.0, 99.0]]]), near=1.0, far=16.0)[0, 0]
    middle = module._lookup(torch.tensor(0.5), module.DEPTH_COLOURS)
    assert (colours[0] == colours[1]).all()
    assert (colours[2] == middle).all()
    assert (colours[3] == colours[4]).all()
    assert colours[1, 0] > colours[1, 2], "near is red"
    assert colours[3, 2] > colours[3, 0], "far is blue"


def test_error_grows_brighter_and_saturates():
    colours = colour_error(torch.tensor([[[0.0, 1.0, 2.0, 9.0]]]), max_error=2.0)[0, 0].astype(int)
    brightness = colours.sum(axis=1)
    assert brightness[0] < 10 < brightness[1] < brightness[2] == brightness[3]


def test_pixels_without_a_value_are_grey():
    nan, inf = float("nan"), float("inf")
    masked = torch.tensor([[[True, False]]])
    assert (colour_motion(vectors((nan, 0.0), (0.0, inf)), 1.0) == NO_VALUE).all()
    assert (colour_depth(torch.tensor([[[nan, inf, 0.0, -1.0]]]), 1.0, 2.0) == NO_VALUE).all()
    assert (colour_error(torch.tensor([[[nan, inf]]]), 1.0) == NO_VALUE).all()
    for colours in (
        colour_motion(vectors((1.0, 0.0), (1.0, 0.0)), 1.0, masked),
        colour_depth(torch.ones(1, 1, 2), 1.0, 2.0, masked),
        colour_error(torch.ones(1, 1, 2), 1.0, masked),
    ):
        assert (colours[0, 0, 0] != NO_VALUE).any()
        assert (colours[0, 0, 1] == NO_VALUE).all()


def test_no_value_has_a_grey_that_could_be_taken_for_none():
    angle = torch.linspace(0, 2 * torch.pi, 721)[:, None]
    speed = torch.linspace(0, 1, 101)
    flow = torch.stack([angle.cos() * speed, angle.sin() * speed])[None]
    share = torch.linspace(0, 1, 256)[None, None]
    for colours in (colour_motion(flow, 1.0), colour_depth(100**share, 1.0, 100.0), colour_error(share, 1.0)):
        distance = abs(colours.reshape(-1, 3).astype(int) - NO_VALUE).max(axis=1)
        assert distance.min() > 30


def test_half_precision_and_gradients_are_accepted():
    motion = vectors((3.0, 4.0), (-5.0, 0.0))
    assert (colour_motion(motion.bfloat16().requires_grad_(), 8.0) == colour_motion(motion, 8.0)).all()


# ---------------------------------------------------------------------------------------------- ranges


def test_motion_range_looks_at_moving_valid_pixels(truth):
    motion = truth.motion.clone()
    motion[2, :, 0, 0] = 500.0  # one wild pixel among 720 that move
    assert motion_range(motion, truth.motion_valid) == 4.0
    motion[:, :, :4] = 300.0
    valid = truth.motion_valid.clone()
    valid[:, :4] = False
    assert motion_range(motion, valid) == 4.0


def test_motion_range_of_a_still_clip_does_not_blow_up_noise(truth):
    noise = 0.01 * torch.randn(truth.motion.shape, generator=torch.Generator().manual_seed(0))
    assert motion_range(noise, truth.motion_valid) == 1.0
    assert motion_range(noise, torch.zeros_like(truth.motion_valid)) == 1.0


@pytest.mark.parametrize(("speed", "expected"), [(3.14159, 3.2), (127.0, 130.0), (2.1, 2.1)])
def test_motion_range_is_rounded_up_to_two_digits(speed, expected):
    motion = torch.full((1, 2, 4, 4), 0.0)
    motion[:, 1] = speed
    assert motion_range(motion, torch.ones(1, 4, 4, dtype=torch.bool)) == expected


def test_depth_range_looks_at_valid_pixels(truth):
    assert depth_range(truth.depth, truth.depth_valid) == (2.0, 8.0)
    assert depth_range(truth.depth, torch.zeros_like(truth.depth_valid)) == (1.0, 10.0)


def test_depth_range_of_a_wall_is_not_empty():
    near, far = depth_range(torch.full((1, 4, 4), 3.0), torch.ones(1, 4, 4, dtype=torch.bool))
    assert near < 3.0 < far
    assert far >= 1.2 * near
