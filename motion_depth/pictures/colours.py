"""Motion, depth and errors to colours, and the scales under which truth and prediction are coloured alike.

The only place that decides what colour a value has. Axes: t frames, h height, w width. Maps come in as tensors on any
device; colours go out as numpy uint8 RGB. A colour depends on the value and the scale only, never on what else is in
the picture. Values beyond the scale saturate; a pixel without a value is `NO_VALUE` grey, which no value has.
"""

import math
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from torch import Tensor
from torchvision.utils import flow_to_image

NO_VALUE = (128, 128, 128)
DEPTH_COLOURS = "turbo_r"  # red is near, blue is far
ERROR_COLOURS = "magma"  # black is no error
MOVING_PIXELS = 0.5  # the range of speeds is taken over pixels that move at least this far between two frames


def colour_motion(motion: Tensor, max_speed: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour flow: hue is the direction, white is no motion, full colour is `max_speed` or faster.

    motion: (t, 2, h, w) pixels. valid: (t, h, w) bool; None: every finite vector. Returns (t, h, w, 3). These are
    torchvision's `flow_to_image` colours of the vectors as they are, that is of *backward* flow.
    """
    motion = motion.detach().float().cpu()
    valid = _valid(motion.isfinite().all(dim=1), valid)
    # flow_to_image divides by the longest vector of the call. So every frame gets one that is at least as long as the
    # others: a row of unit vectors below it, which is cut off again. Adding 0 turns -0 into 0: their hues differ.
    flow = motion.masked_fill(~valid[:, None], 0.0) / max_speed + 0.0
    flow = flow / vector_length(flow)[:, None].clamp(min=1.0) * (1 - 1e-6)
    reference = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, flow.shape[-1])
    colours = [flow_to_image(torch.cat([frame, reference], dim=1))[:, :-1] for frame in flow]
    return _grey_out(torch.stack(colours).movedim(1, -1).numpy(), valid)


def colour_depth(depth: Tensor, near: float, far: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour distances on a logarithmic scale from near (red) to far (blue).

    depth: (t, h, w) metres. valid: (t, h, w) bool; None: every finite positive distance. Returns (t, h, w, 3).
    """
    depth = depth.detach().float().cpu()
    valid = _valid(depth.isfinite() & (depth > 0), valid)
    share = torch.log(depth.masked_fill(~valid, near) / near) / math.log(far / near)
    return _grey_out(_lookup(share, DEPTH_COLOURS), valid)


def colour_error(error: Tensor, max_error: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour errors from 0 (black) to max_error (pale yellow). error: (t, h, w), >= 0. Returns (t, h, w, 3)."""
    error = error.detach().float().cpu()
    valid = _valid(error.isfinite(), valid)
    return _grey_out(_lookup(error.masked_fill(~valid, 0.0) / max_error, ERROR_COLOURS), valid)


def vector_length(motion: Tensor) -> Tensor:
    """(t, 2, h, w) -> (t, h, w); several times faster than `norm` over the second axis."""
    return torch.hypot(*motion.unbind(dim=1))


def _valid(has_value: Tensor, valid: Tensor | None) -> Tensor:
    return has_value if valid is None else has_value & valid.cpu()


def _lookup(share: Tensor, colours: str) -> np.ndarray:
    """Colour of each share (...) of the scale, clamped to 0 .. 1; (..., 3)."""
    table = matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3]
    return table[(share.clamp(0, 1) * 255).round().to(torch.uint8).numpy()]


def _grey_out(colours: np.ndarray, valid: Tensor) -> np.ndarray:
    return np.where(valid.numpy()[..., None], colours, np.uint8(NO_VALUE))


@dataclass(frozen=True)
class MotionScale:
    """max_speed: pixels between two sampled frames, full colour."""

    max_speed: float


@dataclass(frozen=True)
class DepthScale:
    """near, far: metres, the ends of the logarithmic scale."""

    near: float
    far: float


@dataclass(frozen=True)
class ErrorScale:
    """max_error: the end of the scale, in `unit`."""

    max_error: float
    unit: str


@dataclass(frozen=True)
class Maps:
    """What is known or predicted about a clip.

    motion: (t, 2, h, w) backward flow in pixels. depth: (t, h, w) metres. motion_valid, depth_valid: (t, h, w) bool;
    None: wherever there is a finite (positive) value. Frame 0 has no motion, whatever stands there.
    """

    motion: Tensor
    depth: Tensor
    motion_valid: Tensor | None = None
    depth_valid: Tensor | None = None

    def has_motion(self) -> Tensor:
        """(t, h, w) bool, on the CPU."""
        valid = _valid(self.motion.detach().isfinite().all(dim=1).cpu(), self.motion_valid)
        valid[0] = False
        return valid

    def has_depth(self) -> Tensor:
        """(t, h, w) bool, on the CPU."""
        depth = self.depth.detach().cpu()
        return _valid(depth.isfinite() & (depth > 0), self.depth_valid)


@dataclass(frozen=True)
class Scales:
    """The scales under which truth and prediction are shown alike."""

    motion: MotionScale
    depth: DepthScale

    @classmethod
    def of(cls, maps: Maps) -> "Scales":
        """The scales that suit these maps; `maps` is the truth wherever there is one."""
        near, far = depth_range(maps.depth, maps.has_depth())
        return cls(MotionScale(motion_range(maps.motion, maps.has_motion())), DepthScale(near, far))


def motion_range(motion: Tensor, valid: Tensor) -> float:
    """99th percentile of the speeds of moving pixels, rounded up to two digits; at least 1 pixel.

    motion: (t, 2, h, w) pixels. valid: (t, h, w) bool.
    """
    speed = vector_length(motion.detach().float().cpu()).numpy()[valid.cpu().numpy()]
    moving = speed[speed > MOVING_PIXELS]
    return max(1.0, _two_digits(float(np.percentile(moving, 99)), math.ceil)) if moving.size else 1.0


def depth_range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """1st and 99th percentile of the distances, rounded outward to two digits; (1, 10) if there is no valid pixel.

    depth, valid: (t, h, w), metres and bool. Never empty: far is at least 1.2 times near.
    """
    distances = depth.detach().float().cpu().numpy()[valid.cpu().numpy()]
    if not distances.size:
        return 1.0, 10.0
    near, far = (float(distance) for distance in np.percentile(distances, (1, 99)))
    middle = math.sqrt(near * far)
    spread = max(far / middle, math.sqrt(1.2))
    return _two_digits(middle / spread, math.floor), _two_digits(middle * spread, math.ceil)


def _two_digits(value: float, rounding) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    # What is a two-digit number already, but for the last bits of a float32, stays as it is.
    digits = round(value / step) if math.isclose(value / step, round(value / step), rel_tol=1e-6) else value / step
    return float(f"{rounding(digits) * step:.2g}")
