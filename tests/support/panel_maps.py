"""Maps that the tests of colours and panels share."""

import torch

from motion_depth.pictures.colours import Maps

FRAMES, HEIGHT, WIDTH = 5, 32, 48


def vectors(*pairs: tuple[float, float]) -> torch.Tensor:
    """One frame of one row that holds these (x, y): (1, 2, 1, n)."""
    return torch.tensor(pairs).T[None, :, None, :].contiguous()


def moving_square() -> Maps:
    """A square that moves 4 pixels to the right per frame, 2 m away, before a wall at 8 m under an empty sky."""
    motion = torch.zeros(FRAMES, 2, HEIGHT, WIDTH)
    depth = torch.full((FRAMES, HEIGHT, WIDTH), 8.0)
    depth[:, :8] = 0.0
    for frame in range(FRAMES):
        square = slice(12, 24), slice(4 + 4 * frame, 16 + 4 * frame)
        motion[frame, 0][square] = -4.0
        depth[frame][square] = 2.0
    return Maps(motion, depth, torch.ones(FRAMES, HEIGHT, WIDTH, dtype=torch.bool), depth > 0)
