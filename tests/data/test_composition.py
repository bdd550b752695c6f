"""Motion composed over frames against the exact motion of a moving card."""

import pytest
import torch
from torch import Tensor

from motion_depth.data.motion import compose
from tests.data.test_motion import frame, grid

CARD_HEIGHT, CARD_WIDTH, WALL = 96, 120, 4.0


def card(t: float) -> tuple[Tensor, float, float]:
    """Centre in pixels, half-size in pixels and distance of a square card that speeds up and comes nearer."""
    depth = 3.2 - 0.04 * t
    return torch.tensor([30.0 + 2.3 * t + 0.12 * t * t, 52.0 - 1.1 * t]), 70.0 / depth, depth


def card_motion(t: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Exact flow (2, H, W) from frame t to t - steps, depth (H, W), and where the card is (H, W), at frame t."""
    points = grid(CARD_HEIGHT, CARD_WIDTH)
    centre, half, depth = card(t)
    before, _, depth_before = card(t - steps)
    offset = points - centre[:, None, None]
    on_card = (offset.abs() <= half).all(dim=0)
    was_at = before[:, None, None] + offset * (depth / depth_before)
    flow = torch.where(on_card, was_at - points, 0.0)
    return flow, torch.where(on_card, depth, WALL), on_card


def covered(points: Tensor, t: int) -> Tensor:
    """Whether points (2, H, W) lie on the card at frame t."""
    centre, half, _ = card(t)
    return ((points - centre[:, None, None]).abs() <= half).all(dim=0)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_composed_motion_of_a_moving_card_is_the_exact_motion(steps):
    errors, kept, blind = [], [], []
    for t in range(steps, 14):
        frames = [frame(*card_motion(t - j, 1)[:2]) for j in range(steps)]
        composed, valid = compose(frames)
        exact, _, on_card = card_motion(t, steps)
        error = (composed - exact).norm(dim=0)
        points = grid(CARD_HEIGHT, CARD_WIDTH)
        hidden = ~on_card & torch.stack([covered(points, t - j) for j in range(1, steps)]).any(dim=0)
        errors.append(error[valid & (on_card | hidden)])
        kept.append(valid[on_card])
        blind.append(valid[hidden])
    assert torch.cat(errors).quantile(0.99) < 0.01
    assert torch.cat(errors).max() < 0.1
    assert torch.cat(kept).float().mean() > 0.8
    assert torch.cat(blind).numel() > 300
    assert not torch.cat(blind).any()  # the wall behind the card was not seen there: no vector of the card is its
