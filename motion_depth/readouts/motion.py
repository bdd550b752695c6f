"""Motion: backward flow in pixels of the clip's resolution, to the previous sampled frame.

Axes: b clip, t frame, h w pixel; motion is (..., t, 2, h, w), x to the right and y down. Frame 0 has none.

Sources: the Charbonnier penalty as compared for optical flow by Sun et al. 2010, end-point error (Middlebury).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from motion_depth.data.clip_frame import ClipFrame
from motion_depth.data.convention import MOVING_PIXELS, camera_rests_on_grid, decode_motion
from motion_depth.data.motion import FrameMotion, compose
from motion_depth.data.scene import DEPTH, MOTION
from motion_depth.pictures.colours import ErrorScale, Wheel, grey_out, two_digits, within
from motion_depth.readouts.masked import count, hits, masked_mean, total
from motion_depth.readouts.readout import Predictions, Readout, Statistics
from motion_depth.readouts.targets import Target, Targets

# Shares of the mean speed below which an error counts squared. On moving pixels a linear loss has its minimum at no
# motion for as long as the direction is unclear, which a squared one leaves sooner. On static ones the share is
# smaller, so that the prediction comes down to zero there.
MOVING_EPSILON, STATIC_EPSILON = 0.5, 0.2
OUTLIER_PIXELS = 1.0  # an error above this is an outlier
UNITS = "pixels of this size; backward flow (x right, y down): the point at p was at p + motion in the frame before"


class Motion(Readout):
    name = "motion"
    kinds = (MOTION, DEPTH)  # a composed vector is not valid where the surface it leads to was hidden
    channels, map_channels = 2, (2,)
    meaning = "backward flow in pixels of the clip's resolution, x right, y down, to the previous sampled frame"
    scales = ("motion", "motion_all")
    numbers: ClassVar = {"moving_share": (0.0, 1.0)}
    means: ClassVar = {
        "epe": ("epe", "motion_pixels"),
        "moving_epe": ("moving_epe", "moving_pixels"),
        "outlier_1px": ("outlier_1px", "motion_pixels"),
    }
    columns = ("epe", "epe_baseline", "moving_epe", "moving_epe_baseline", "moving_epe_constant_velocity",
               "outlier_1px")  # fmt: skip
    baselines: ClassVar = {"baseline": "no motion", "constant_velocity": "motion of the frame before"}
    headline: ClassVar = {"moving_epe": "moving EPE", "epe": "EPE"}
    unit, nothing, plot = "px", "nothing moves", "Motion of moving pixels: end-point error, px"

    def needs(self, frame: ClipFrame) -> list[tuple[str, int]]:
        return [(MOTION, frame.motion_file(step)) for step in frame.steps] + [(DEPTH, step) for step in frame.steps]

    def target(self, frame: ClipFrame) -> Target:
        """Backward flow (2, h, w) to the clip's frame before, composed over the frames between; none in the first one.

        Where nothing is there it is valid only while the camera rests in every step (`convention.camera_rests`).
        """
        height, width = frame.crop.target
        if not frame.steps:
            return Target(torch.zeros(2, height, width), torch.zeros(height, width, dtype=torch.bool))
        files = [(frame.vectors(step), frame.array(DEPTH, step)) for step in frame.steps]
        steps = [
            FrameMotion(*decode_motion(vectors, frame.convention), torch.from_numpy(depth)) for vectors, depth in files
        ]
        flow, valid = frame.crop.motion(*compose(steps))
        something = frame.crop.nearest(torch.from_numpy(files[0][1])) > 0
        if not something.all() and not all(camera_rests_on_grid(*each, frame.convention) for each in files):
            valid = valid & something
            flow = flow.masked_fill(~something, 0.0)
        return Target(flow, valid)

    def decode(self, raw: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """`motion`: (b, t, 2, h, w) pixels; a raw output of 1 is the mean speed of moving pixels in training."""
        return {"motion": raw * statistics.scales["motion"]}

    def losses(
        self, predictions: Predictions, targets: Targets, scales: Mapping[str, float], balanced: bool
    ) -> dict[str, Tensor]:
        """Length of the error of motion, squared for small ones.

        Balanced: moving and static pixels are averaged apart and added, so that the few moving ones (about 5 % of a
        physics clip) weigh as much as all others together: `motion_moving`, `motion_static`. Otherwise `motion_all`.
        """
        motion, valid = targets["motion"]
        error = torch.where(valid[:, :, None], predictions["motion"] - motion, 0.0)
        moving = is_moving(motion, valid)
        of_moving = charbonnier(error, dim=2, epsilon=MOVING_EPSILON * scales["motion"])
        of_static = charbonnier(error, dim=2, epsilon=STATIC_EPSILON * scales["motion"])
        if not balanced:
            both = torch.where(moving, of_moving, of_static)
            return {"motion_all": masked_mean(both, valid) / scales["motion_all"]}
        unit = scales["motion"] * (math.hypot(1, MOVING_EPSILON) - MOVING_EPSILON)  # of an error of the mean speed
        return {
            "motion_moving": masked_mean(of_moving, moving) / unit,
            "motion_static": masked_mean(of_static, valid & ~moving) / unit,
        }

    def measure(self, targets: Targets) -> dict[str, Tensor]:
        motion, valid = targets["motion"]
        moving, speed = is_moving(motion, valid), motion.norm(dim=1)
        return {
            "speed": speed[valid].sum().double(),
            "valid": valid.sum(),
            "moving_speed": speed[moving].sum().double(),
            "moving": moving.sum(),
        }

    def statistics(self, clips: Sequence[dict[str, Tensor]]) -> Statistics:
        """`motion`, `motion_all`: pixels; mean speed of moving pixels, and of all valid ones. `moving_share` of these.

        A set where nothing moves still trains: one pixel is then the unit of motion.
        """
        sums = {name: float(sum(clip[name] for clip in clips)) for name in clips[0]}
        valid = max(sums["valid"], 1)
        motion = sums["moving_speed"] / sums["moving"] if sums["moving"] else 1.0
        scales = {"motion": motion, "motion_all": max(sums["speed"] / valid, 1e-3)}
        return Statistics(scales, {"moving_share": sums["moving"] / valid})

    def describe(self, numbers: Mapping[str, float]) -> str:
        return f"{numbers['moving_share']:.1%} of pixels move"

    def sums(self, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
        return self._sums(predictions["motion"], targets["motion"])

    def _sums(self, predicted: Tensor, truth: Target) -> dict[str, Tensor]:
        error = (predicted - truth.map).norm(dim=2)
        valid, moving = truth.valid, is_moving(*truth)
        return {
            "motion_pixels": count(valid),
            "moving_pixels": count(moving),
            "epe": total(error, valid),
            "moving_epe": total(error, moving),
            "outlier_1px": hits(error > OUTLIER_PIXELS, error, valid),
        }

    def baseline_sums(self, targets: Targets, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """`constant_velocity`: the true motion of the frame before, at the same pixel (none before frame 1)."""
        motion, valid = truth = targets["motion"]
        previous = torch.roll(torch.where(valid[:, :, None], motion, 0.0), 1, dims=1)
        previous[:, 0] = 0
        return {
            "baseline": self._sums(torch.zeros_like(motion), truth),
            "constant_velocity": self._sums(previous, truth),
        }

    def view(self, predictions: Predictions) -> Target:
        motion = predictions["motion"]
        return Target(motion, motion.isfinite().all(dim=-3))

    def has_value(self, target: Target) -> Tensor:
        """Where there is a finite vector, whatever stands at frame 0."""
        valid = within(target.map.detach().isfinite().all(dim=1), target.valid)
        valid[0] = False
        return valid

    def scale(self, target: Target) -> MotionScale:
        """Up to the 99th percentile of the speeds of moving pixels, rounded up to two digits; at least 1 pixel."""
        speed = vector_length(target.map.detach().float().cpu()).numpy()[self.has_value(target).numpy()]
        moving = speed[speed > MOVING_PIXELS]
        return MotionScale(max(1.0, two_digits(float(np.percentile(moving, 99)), math.ceil)) if moving.size else 1.0)

    def error(self, predicted: Tensor, truth: Target, scale: MotionScale) -> tuple[Tensor, ErrorScale]:
        """Length of the difference in pixels. Its scale ends where the motion's does, so that a prediction of no motion
        shows an error as bright as the motion is fast.
        """
        difference = predicted.detach().float().cpu() - truth.map.float().cpu()
        return vector_length(difference), ErrorScale(scale.max_speed, "px")

    def arrays(self, predictions: Predictions) -> dict[str, np.ndarray]:
        """`motion` (t, 2, h, w) float32, `valid_from` (the first frame that has motion) and `units`."""
        return {"motion": predictions["motion"].numpy(), "valid_from": np.int64(1), "units": np.str_(UNITS)}


@dataclass(frozen=True)
class MotionScale:
    """Hue is the direction, white is no motion, full colour is max_speed (pixels between two sampled frames) or faster.

    These are torchvision's `flow_to_image` colours of the vectors as they are, that is of *backward* flow.
    """

    max_speed: float

    def colour(self, values: Tensor, valid: Tensor | None = None) -> np.ndarray:
        """(t, 2, h, w) pixels to (t, h, w, 3)."""
        motion = values.detach().float().cpu()
        valid = within(motion.isfinite().all(dim=1), valid)
        # flow_to_image divides by the longest vector of the call. So every frame gets one that is at least as long as
        # the others: a row of unit vectors below it, cut off again. Adding 0 turns -0 into 0: their hues differ.
        flow = motion.masked_fill(~valid[:, None], 0.0) / self.max_speed + 0.0
        flow = flow / vector_length(flow)[:, None].clamp(min=1.0) * (1 - 1e-6)
        reference = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, flow.shape[-1])
        colours = [flow_to_image(torch.cat([frame, reference], dim=1))[:, :-1] for frame in flow]
        return grey_out(torch.stack(colours).movedim(1, -1).numpy(), valid)

    def legend(self) -> Wheel:
        """Where a surface moves to (not where it came from, which is what backward flow says), and its colour."""
        return Wheel(lambda to: self.colour(-to * self.max_speed), "moves to", f"≥ {self.max_speed:g} px")


def is_moving(motion: Tensor, valid: Tensor) -> Tensor:
    """(..., 2, h, w) and (..., h, w) bool to (..., h, w) bool: valid pixels whose motion is above MOVING_PIXELS."""
    return valid & (motion.square().sum(dim=-3) > MOVING_PIXELS**2)


def vector_length(motion: Tensor) -> Tensor:
    """(t, 2, h, w) to (t, h, w); several times faster than `norm` over the second axis."""
    return torch.hypot(*motion.unbind(dim=1))


def charbonnier(error: Tensor, dim: int, epsilon: float) -> Tensor:
    """Length of a vector error, quadratic below epsilon and linear above: sqrt(|e|^2 + eps^2) - eps."""
    return (error.square().sum(dim=dim) + epsilon**2).sqrt() - epsilon
