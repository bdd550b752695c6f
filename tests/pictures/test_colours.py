"""Colours depend on the value and the scale alone; scales follow what is valid."""

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from motion_depth.pictures.colours import NO_VALUE, ErrorScale, look_up
from motion_depth.readouts import READOUTS
from motion_depth.readouts.depth import COLOURS, DepthScale
from motion_depth.readouts.motion import MotionScale
from motion_depth.readouts.targets import Target, Targets
from tests.support.quantities import moving_square, vectors


@pytest.fixture
def truth() -> Targets:
    return moving_square()


def motion_scale(motion: torch.Tensor, valid: torch.Tensor) -> float:
    return READOUTS["motion"].scale(Target(motion, valid)).max_speed


def depth_scale(depth: torch.Tensor, valid: torch.Tensor) -> DepthScale:
    return READOUTS["depth"].scale(Target(depth, valid))


# ---------------------------------------------------------------------------------------------- colours


def test_a_vector_has_the_same_colour_whatever_else_is_in_the_picture():
    generator = torch.Generator().manual_seed(0)
    motion = 5 * torch.randn(1, 2, 13, 17, generator=generator)
    together = MotionScale(8.0).colour(motion)[0]
    beside_faster = MotionScale(8.0).colour(torch.cat([motion, torch.full_like(motion, 90.0)]))[0]
    alone = [
        MotionScale(8.0).colour(motion[:, :, y : y + 1, x : x + 1])[0, 0, 0] for y, x in ((0, 0), (5, 9), (12, 16))
    ]
    assert (beside_faster == together).all()
    assert (np.stack(alone) == together[[0, 5, 12], [0, 9, 16]]).all()


def test_motion_has_the_colours_of_torchvision():
    motion = vectors((3.0, 4.0), (-5.0, 0.0), (1.0, -1.0), (0.0, 0.0))  # the longest is 5 pixels
    expected = flow_to_image(motion)[0].permute(1, 2, 0).numpy()
    assert abs(MotionScale(5.0).colour(motion)[0].astype(int) - expected).max() <= 1


def test_no_motion_is_white_and_speed_saturates():
    colours = MotionScale(6.0).colour(vectors((0.0, 0.0), (3.0, 0.0), (6.0, 0.0), (600.0, 0.0)))[0, 0]
    assert (colours[0] == 255).all()
    assert (colours[1] != colours[2]).any()
    assert (colours[3] == colours[2]).all()


def test_negative_zero_has_the_colour_of_zero():
    colours = MotionScale(6.0).colour(vectors((5.0, 0.0), (5.0, -0.0)))[0, 0]
    assert (colours[0] == colours[1]).all()


def test_depth_is_logarithmic_and_saturates():
    colours = DepthScale(1.0, 16.0).colour(torch.tensor([[[0.5, 1.0, 4.0, 16.0, 99.0]]]))[0, 0]
    middle = look_up(torch.tensor(0.5), COLOURS)
    assert (colours[0] == colours[1]).all()
    assert (colours[2] == middle).all()
    assert (colours[3] == colours[4]).all()
    assert colours[1, 0] > colours[1, 2], "near is red"
    assert colours[3, 2] > colours[3, 0], "far is blue"


def test_error_grows_brighter_and_saturates():
    colours = ErrorScale(2.0, "px").colour(torch.tensor([[[0.0, 1.0, 2.0, 9.0]]]))[0, 0].astype(int)
    brightness = colours.sum(axis=1)
    assert brightness[0] < 10 < brightness[1] < brightness[2] == brightness[3]


def test_pixels_without_a_value_are_grey():
    nan, inf = float("nan"), float("inf")
    masked = torch.tensor([[[True, False]]])
    assert (MotionScale(1.0).colour(vectors((nan, 0.0), (0.0, inf))) == NO_VALUE).all()
    assert (DepthScale(1.0, 2.0).colour(torch.tensor([[[nan, inf, 0.0, -1.0]]])) == NO_VALUE).all()
    assert (ErrorScale(1.0, "%").colour(torch.tensor([[[nan, inf]]])) == NO_VALUE).all()
    for colours in (
        MotionScale(1.0).colour(vectors((1.0, 0.0), (1.0, 0.0)), masked),
        DepthScale(1.0, 2.0).colour(torch.ones(1, 1, 2), masked),
        ErrorScale(1.0, "%").colour(torch.ones(1, 1, 2), masked),
    ):
        assert (colours[0, 0, 0] != NO_VALUE).any()
        assert (colours[0, 0, 1] == NO_VALUE).all()


def test_no_value_has_a_grey_that_could_be_taken_for_none():
    angle = torch.linspace(0, 2 * torch.pi, 721)[:, None]
    speed = torch.linspace(0, 1, 101)
    flow = torch.stack([angle.cos() * speed, angle.sin() * speed])[None]
    share = torch.linspace(0, 1, 256)[None, None]
    for colours in (
        MotionScale(1.0).colour(flow),
        DepthScale(1.0, 100.0).colour(100**share),
        ErrorScale(1.0, "%").colour(share),
    ):
        distance = abs(colours.reshape(-1, 3).astype(int) - NO_VALUE).max(axis=1)
        assert distance.min() > 30


def test_half_precision_and_gradients_are_accepted():
    motion = vectors((3.0, 4.0), (-5.0, 0.0))
    assert (MotionScale(8.0).colour(motion.bfloat16().requires_grad_()) == MotionScale(8.0).colour(motion)).all()


# ---------------------------------------------------------------------------------------------- ranges

# Of frames 1 on: frame 0 has no motion, whatever stands there.


def test_motion_range_looks_at_moving_valid_pixels(truth):
    motion, valid = truth["motion"]
    motion[2, :, 0, 0] = 500.0  # one wild pixel among 576 that move
    motion[0] = 300.0
    assert motion_scale(motion, valid) == 4.0
    motion[:, :, :4] = 300.0
    valid[:, :4] = False
    assert motion_scale(motion, valid) == 4.0


def test_motion_range_of_a_still_clip_does_not_blow_up_noise(truth):
    motion, valid = truth["motion"]
    noise = 0.01 * torch.randn(motion.shape, generator=torch.Generator().manual_seed(0))
    assert motion_scale(noise, valid) == 1.0
    assert motion_scale(noise, torch.zeros_like(valid)) == 1.0


@pytest.mark.parametrize(("speed", "expected"), [(3.14159, 3.2), (127.0, 130.0), (2.1, 2.1)])
def test_motion_range_is_rounded_up_to_two_digits(speed, expected):
    motion = torch.full((2, 2, 4, 4), 0.0)
    motion[:, 1] = speed
    assert motion_scale(motion, torch.ones(2, 4, 4, dtype=torch.bool)) == expected


def test_depth_range_looks_at_valid_pixels(truth):
    depth, valid = truth["depth"]
    assert depth_scale(depth, valid) == DepthScale(2.0, 8.0)
    assert depth_scale(depth, torch.zeros_like(valid)) == DepthScale(1.0, 10.0)


def test_depth_range_of_a_wall_is_not_empty():
    scale = depth_scale(torch.full((1, 4, 4), 3.0), torch.ones(1, 4, 4, dtype=torch.bool))
    assert scale.near < 3.0 < scale.far
    assert scale.far >= 1.2 * scale.near
