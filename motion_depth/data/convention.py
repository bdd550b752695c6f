"""What motion files hold: their convention, and how they become flow. Flow is that of motion.py.

Axes: C channel, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Units = Literal["pixels", "normalized", "ndc"]
Direction = Literal["backward", "forward"]
YAxis = Literal["down", "up"]
FrameOffset = Literal[0, 1, -1]
MOVING_PIXELS = 0.5  # a pixel moves if its motion is longer than this, in pixels of its picture or clip
# `camera_rests`: so far, in pixels, may what rests seem to move; also the most by which a vector of zero for the sky,
# which turns with the camera as the surfaces do, is then wrong.
REST = 0.01
RESTING_SHARE = 0.5  # of the pixels where something is there
LOOKED_AT = 10_000  # pixels of a frame that tell


@dataclass(frozen=True)
class MotionConvention:
    """How the motion files are to be read; the defaults are Omniverse Replicator's, as documented.

    units: `pixels`; `normalized` (a fraction of the picture's width and height); `ndc` (a fraction of half of them).
    direction: `backward` (the sign of this module); `forward` (the file holds the opposite sign).
    y_axis: `down` (y grows downward); `up`.
    frame_offset: frame t's motion lies in the file of frame t + frame_offset; some Isaac Sim releases are off by one.

    Raises ValueError, which names the training script's flag, for any other value.
    """

    units: Units = "pixels"
    direction: Direction = "backward"
    y_axis: YAxis = "down"
    frame_offset: FrameOffset = 0

    def __post_init__(self) -> None:
        choices = {"units": Units, "direction": Direction, "y_axis": YAxis, "frame_offset": FrameOffset}
        for name, choice in choices.items():
            found = getattr(self, name)
            if isinstance(found, bool) or found not in get_args(choice):
                expected = ", ".join(str(value) for value in get_args(choice))
                raise ValueError(f"--motion_{name}: found {found!r}, expected one of {expected}")

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Factors that turn a file's x and y into backward flow in pixels of a (height, width) picture."""
        sign = 1.0 if self.direction == "backward" else -1.0
        y_sign = sign if self.y_axis == "down" else -sign
        share = {"pixels": None, "normalized": 1.0, "ndc": 0.5}[self.units]
        return (sign, y_sign) if share is None else (sign * share * width, y_sign * share * height)


def decode_motion(raw: np.ndarray | Tensor, convention: MotionConvention) -> tuple[Tensor, Tensor]:
    """Turn one motion file's array into flow.

    raw: (H, W, C), C >= 2, any floating type; channels 0 and 1 are x and y, further ones are not looked at.
    Returns flow (2, H, W) and valid (H, W) bool; a vector that is not finite is invalid, its flow is 0.
    """
    raw = torch.as_tensor(raw)
    flow = torch.stack([raw[..., 0], raw[..., 1]]).float()
    height, width = flow.shape[1:]
    for channel, factor in zip(flow, convention.scale(height, width), strict=True):
        if factor != 1.0:
            channel.mul_(factor)
    valid = flow[0].isfinite() & flow[1].isfinite()
    return flow.masked_fill_(~valid, 0.0), valid


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


def camera_rests_on_grid(vectors: np.ndarray, depth: np.ndarray, convention: MotionConvention) -> bool:
    """`camera_rests`, by a grid of the pixels of a frame's vectors (H, W, 2) and distances (H, W), 0 for nothing."""
    step = max(1, round(math.sqrt(depth.size / LOOKED_AT)))
    grid = slice(step // 2, None, step), slice(step // 2, None, step)
    return camera_rests(vectors[grid], depth[grid] > 0, convention.scale(*depth.shape))
