"""Losses against values worked out by hand, masks, and what NaN in invalid pixels may do: nothing."""

import math

import pytest
import torch

from motion_depth.readouts import READOUTS
from motion_depth.readouts.depth import TERM_WEIGHTS, log_gradient_error
from motion_depth.readouts.losses import flow_matching_loss, head_losses
from motion_depth.readouts.masked import masked_mean
from motion_depth.readouts.motion import MOVING_EPSILON, STATIC_EPSILON
from motion_depth.readouts.statistics import neutral
from motion_depth.readouts.targets import Targets
from tests.support.quantities import motion_and_depth

ONES = neutral().scales


def make_targets(b: int = 2, t: int = 3, h: int = 16, w: int = 16, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    motion = torch.zeros(b, t, 2, h, w)
    motion[:, :, :, 4:8, 4:8] = 3 * torch.randn(b, t, 2, 4, 4, generator=generator)
    motion_valid = torch.rand(b, t, h, w, generator=generator) > 0.2
    motion_valid[:, 0] = False
    depth_valid = torch.rand(b, t, h, w, generator=generator) > 0.2
    depth = torch.where(depth_valid, 1 + 4 * torch.rand(b, t, h, w, generator=generator), 0.0)
    return motion_and_depth(motion, motion_valid, depth, depth_valid)


def make_predictions(targets: Targets) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "motion": torch.randn_like(targets["motion"].map).requires_grad_(),
        "log_depth": torch.randn_like(targets["depth"].map).requires_grad_(),
        "background_logit": torch.randn_like(targets["depth"].map).requires_grad_(),
    }


def test_masked_mean_by_hand():
    values = torch.tensor([[1.0, 2.0, 6.0], [5.0, math.nan, 1.0]])
    mask = torch.tensor([[True, False, True], [True, False, False]])
    assert masked_mean(values, mask).tolist() == [3.5, 5.0]


def test_no_valid_pixel_gives_zero_and_zero_gradient():
    targets = make_targets()
    for _, valid in targets.values():
        valid[:] = False
    predictions = make_predictions(targets)
    losses = head_losses(predictions, targets, ONES)
    assert losses["motion_loss"].tolist() == [0.0, 0.0]
    assert losses["depth_log_error"].tolist() == losses["depth_gradient"].tolist() == [0.0, 0.0]
    (losses["motion_loss"] + losses["depth_loss"]).sum().backward()
    assert not predictions["motion"].grad.any()
    assert not predictions["log_depth"].grad.any()


@pytest.mark.parametrize("balanced", [True, False])
def test_gradient_is_zero_at_invalid_pixels_whatever_they_hold(balanced):
    targets = make_targets()
    (motion, has_motion), (depth, has_depth) = targets["motion"], targets["depth"]
    motion[(~has_motion)[:, :, None].expand_as(motion)] = math.nan
    depth[~has_depth] = math.inf
    predictions = make_predictions(targets)
    losses = head_losses(predictions, targets, ONES, balanced)
    total = (losses["motion_loss"] + losses["depth_log_error"] + losses["depth_gradient"]).sum()
    total.backward()
    assert total.isfinite()
    motion_gradient = predictions["motion"].grad.abs().sum(dim=2)
    assert motion_gradient.isfinite().all()
    assert not motion_gradient[~has_motion].any()
    assert motion_gradient[has_motion].all()
    assert not predictions["log_depth"].grad[~has_depth].any()
    assert predictions["log_depth"].grad[has_depth].any()


def test_motion_loss_by_hand():
    motion = torch.zeros(1, 2, 2, 1, 2)
    motion[0, 1, 0, 0, 0] = 3.0  # one moving pixel, (3, 0)
    valid = torch.tensor([[[[False, False]], [[True, True]]]])
    targets = motion_and_depth(motion, valid, torch.ones(1, 2, 1, 2), torch.ones(1, 2, 1, 2, dtype=torch.bool))
    predicted = torch.zeros_like(motion)
    predicted[0, 1, 1] = 4.0  # (0, 4) everywhere: errors 5 on the moving pixel, 4 on the static one
    scales = {"motion": 2.0, "motion_all": 1.5}
    losses = READOUTS["motion"].losses({"motion": predicted}, targets, scales, True)
    loose, tight = MOVING_EPSILON * 2.0, STATIC_EPSILON * 2.0
    moving, static = math.hypot(5, loose) - loose, math.hypot(4, tight) - tight
    unit = math.hypot(2, loose) - loose  # what an error of the mean speed, 2, costs
    assert losses["motion_moving"].item() == pytest.approx(moving / unit)
    assert losses["motion_static"].item() == pytest.approx(static / unit)
    unbalanced = READOUTS["motion"].losses({"motion": predicted}, targets, scales, False)
    assert unbalanced["motion_all"].item() == pytest.approx((moving + static) / 2 / 1.5)


def test_depth_loss_by_hand():
    depth = torch.tensor([[[[1.0, math.e, 0.0]]]])
    targets = motion_and_depth(torch.zeros(1, 1, 2, 1, 3), torch.zeros(1, 1, 1, 3, dtype=torch.bool), depth, depth > 0)
    log_depth, logit = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, 1, 1, 3)
    predictions = {"log_depth": log_depth, "background_logit": logit}
    losses = READOUTS["depth"].losses(predictions, targets, {"log_depth": 0.25, "log_depth_gradient": 0.5}, True)
    assert losses["depth_log_error"].item() == pytest.approx(TERM_WEIGHTS["log_error"] * 0.5 / 0.25)
    assert losses["depth_background"].item() == pytest.approx(TERM_WEIGHTS["background"])
    # Of 8 gradients (4 distances, 2 directions) one has a pair of valid pixels, and differs by 1.
    assert losses["depth_gradient"].item() == pytest.approx(TERM_WEIGHTS["gradient"] * (1 / 8) / 0.5)


def test_gradient_needs_two_valid_pixels():
    residual, valid = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
    residual[..., 8:] = 5.0
    # Across the step lie 1, 2, 4 and 8 columns of pairs of (16 - step), each 5 apart; down there is no step.
    shares = [step / (16 - step) for step in (1, 2, 4, 8)]
    assert log_gradient_error(residual, valid).item() == pytest.approx(5 * sum(shares) / 8)
    valid[..., 8:] = False
    assert log_gradient_error(residual, valid).item() == 0


def test_losses_are_per_clip():
    targets = make_targets()
    predictions = make_predictions(targets)
    both = head_losses(predictions, targets, ONES)
    for clip in range(2):
        alone = head_losses(
            {name: value[clip : clip + 1] for name, value in predictions.items()},
            targets.each(lambda value, clip=clip: value[clip : clip + 1]),
            ONES,
        )
        for name, value in alone.items():
            torch.testing.assert_close(value[0], both[name][clip])


def test_flow_matching_loss_leaves_latent_0_out():
    velocity, latents, noise = (torch.randn(2, 4, 3, 2, 2) for _ in range(3))
    loss = flow_matching_loss(velocity, latents, noise)
    expected = ((velocity - (noise - latents))[:, :, 1:] ** 2).flatten(1).mean(dim=1)
    torch.testing.assert_close(loss, expected)
    velocity[:, :, 0] = 1e6
    torch.testing.assert_close(flow_matching_loss(velocity, latents, noise), expected)
