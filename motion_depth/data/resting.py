"""Motion over several frames without the pixels that rest, which in a clip with a still camera are nearly all.

The result is that of decoding every file and chaining all of it (`motion.compose`); only the way there is shorter: a
pixel whose vectors are zero in every file, and whose distance is the same in every file, has moved by nothing.

Axes: H height, W width, n the other pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from motion_depth.data.motion import CoverCrop, MotionConvention, Pixels, compose_at, leaves_picture

# `camera_rests`: so far, in pixels, may what rests seem to move; also the most by which a vector of zero for the sky,
# which turns with the camera as the surfaces do, is then wrong.
REST = 0.01
RESTING_SHARE = 0.5  # of the pixels where something is there
LOOKED_AT = 10_000  # pixels of a frame, on a grid


@dataclass(frozen=True)
class FrameFiles:
    """A frame as its files hold it; vectors are decoded where they are looked up, and nowhere else.

    vectors: (H, W, 2) float32, x and y next to each other; a view of a file's first channels will do.
    depth: (H, W) float32, metres, 0 for "nothing there".
    """

    vectors: np.ndarray
    depth: np.ndarray
    convention: MotionConvention

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.shape[0], self.depth.shape[1]

    @property
    def pairs(self) -> np.ndarray:
        """x and y as one 64-bit number, (H W,), whatever lies between them and the next ones."""
        return self.vectors.view(np.int64).reshape(-1)

    def at(self, index: Tensor) -> Pixels:
        """The pixels with these flat indices (n,), decoded as `motion.decode_motion` does."""
        flow = torch.from_numpy(self.pairs).index_select(0, index).view(torch.float32).view(-1, 2).T.contiguous()
        for channel, factor in zip(flow, self.convention.scale(*self.size), strict=True):
            if factor != 1.0:
                channel.mul_(factor)
        depth = torch.from_numpy(self.depth).view(-1).index_select(0, index)
        if math.isfinite(flow.sum()):  # then every vector is; looking at each takes longer than all the rest here
            return Pixels(flow, torch.ones(len(index), dtype=torch.bool), depth)
        valid = flow[0].isfinite() & flow[1].isfinite()
        return Pixels(flow.masked_fill_(~valid, 0.0), valid, depth)

    def camera_rests(self) -> bool:
        """`camera_rests` on a grid of the pixels."""
        step = max(1, round(math.sqrt(self.depth.size / LOOKED_AT)))
        grid = slice(step // 2, None, step), slice(step // 2, None, step)
        return camera_rests(self.vectors[grid], self.depth[grid] > 0, self.convention.scale(*self.size))


def camera_rests(vectors: np.ndarray, there: np.ndarray, scale: tuple[float, float]) -> bool:
    """Whether the camera rests between a frame and the one before, as far as the frame's own files tell.

    Where nothing is there renderers write zero vectors (some write the true ones), so only surfaces tell. While the
    camera rests most of them rest as well; when it moves they move, but for what is fixed to the camera, such as a
    gripper, and that fills less than half. Where nothing is there at all, or more than half of it moves, no vector
    tells a moving camera from a resting one: the answer is no, because a wrong target does more harm than none.

    vectors: (..., 2) as on disk. there: (...) bool, something is there. scale: `MotionConvention.scale`.
    """
    x, y = np.moveaxis(vectors[there], -1, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        resting = np.count_nonzero((np.abs(x * scale[0]) <= REST) & (np.abs(y * scale[1]) <= REST))
    return bool(resting > 0 and resting >= RESTING_SHARE * len(x))


def compose_files(frames: Sequence[FrameFiles], crop: CoverCrop) -> tuple[Tensor, Tensor, Tensor]:
    """Chain the motion of successive frames, newest first, and fit it to the clip's picture.

    Returns indices (n,) of pixels of the clip, and their flow (2, n) and valid (n,), as `motion.compose` and
    `CoverCrop.motion` would give them. All other pixels rest: their flow is 0 and valid.
    """
    points = torch.from_numpy(_not_at_rest(frames))
    flow, valid = compose_at(frames, points)
    if crop.source == crop.target:
        valid &= ~leaves_picture(points, flow, crop.source)
        return points, flow.masked_fill_(~valid, 0.0), valid
    pixels = crop.source[0] * crop.source[1]
    all_flow = torch.zeros(2, pixels).index_copy_(1, points, flow).unflatten(1, crop.source)
    all_valid = torch.ones(pixels, dtype=torch.bool).index_copy_(0, points, valid).unflatten(0, crop.source)
    all_flow, all_valid = crop.motion(all_flow, all_valid)
    return torch.arange(all_valid.numel()), all_flow.flatten(1), all_valid.flatten()


def _not_at_rest(frames: Sequence[FrameFiles]) -> np.ndarray:
    """Flat indices of the pixels whose vector is not zero in some frame, or whose distance differs between two."""
    moves = frames[0].pairs != 0
    for later, earlier in pairwise(frames):
        moves |= earlier.pairs != 0
        moves |= (later.depth != earlier.depth).reshape(-1)
    return np.flatnonzero(moves)
