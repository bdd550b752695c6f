"""Targets and statistics of motion and depth that tests share."""

import torch
from torch import Tensor

from motion_depth.readouts.readout import Statistics
from motion_depth.readouts.targets import Target, Targets

FRAMES, HEIGHT, WIDTH = 5, 32, 48


def motion_and_depth(motion: Tensor, has_motion: Tensor | None, depth: Tensor, has_depth: Tensor | None) -> Targets:
    return Targets(motion=Target(motion, has_motion), depth=Target(depth, has_depth))


def statistics_of(
    motion: float = 2.0, log_depth: float = 1.0, spread: float = 0.3, size: int = 32, gradient: float = 0.1
) -> Statistics:
    """motion: mean speed of moving pixels. log_depth: the median. spread, gradient: of log depth."""
    scales = {"motion": motion, "motion_all": 0.3, "log_depth": spread, "log_depth_gradient": gradient}
    numbers = {"log_depth": log_depth, "moving_share": 0.05, "background_share": 0.0}
    return Statistics(scales, numbers, {"mean_depth": torch.full((size, size), 3.0)})


def vectors(*pairs: tuple[float, float]) -> Tensor:
    """One frame of one row that holds these (x, y): (1, 2, 1, n)."""
    return torch.tensor(pairs).T[None, :, None, :].contiguous()


def moving_square() -> Targets:
    """A square that moves 4 pixels to the right per frame, 2 m away, before a wall at 8 m under an empty sky."""
    motion = torch.zeros(FRAMES, 2, HEIGHT, WIDTH)
    depth = torch.full((FRAMES, HEIGHT, WIDTH), 8.0)
    depth[:, :8] = 0.0
    for frame in range(FRAMES):
        square = slice(12, 24), slice(4 + 4 * frame, 16 + 4 * frame)
        motion[frame, 0][square] = -4.0
        depth[frame][square] = 2.0
    return motion_and_depth(motion, torch.ones(FRAMES, HEIGHT, WIDTH, dtype=torch.bool), depth, depth > 0)
