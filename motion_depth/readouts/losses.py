"""Masked losses of the motion and depth heads.

Axes: b clip, t frame, h w pixel at the clip's resolution. Every loss comes back per clip, (b,), so that batches equal
gradient accumulation and every value can be logged by the clip's own noise level. Every term is divided by what it is
for the first prediction (median depth, zero motion) on the training set, so each starts near 1.

Sources: scale-invariant log error (Eigen et al. 2014), multi-scale gradient matching (MegaDepth, Li and Snavely 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

MOVING_PIXELS = 0.5  # a pixel moves if its true motion is longer than this, in pixels of the clip
# Shares of the mean speed below which a motion error counts squared. On moving pixels a linear loss has its minimum at
# no motion for as long as the direction is unclear, which a squared one leaves sooner. On static ones the share is
# smaller, so that the prediction comes down to zero there.
MOVING_EPSILON, STATIC_EPSILON = 0.5, 0.2
GRADIENT_SCALES = (1, 2, 4, 8)  # pixels between the two ends of a depth gradient
DEPTH_TERM_WEIGHTS = {"log_error": 0.8, "gradient": 0.1, "background": 0.1}


@dataclass
class Targets:
    """What the heads should say, for a batch of clips.

    Attributes:
        motion: (b, t, 2, h, w) pixels, backward flow to the previous frame.
        motion_valid: (b, t, h, w) bool; all False at frame 0.
        depth: (b, t, h, w) metres along the ray, 0 where invalid.
        depth_valid: (b, t, h, w) bool.
    """

    motion: Tensor
    motion_valid: Tensor
    depth: Tensor
    depth_valid: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Targets:
        """Moves everything; the two maps also change type, after they were moved as small as they are."""
        motion, motion_valid, depth, depth_valid = (
            value.to(device, non_blocking=True) for value in vars(self).values()
        )
        return Targets(motion.to(dtype), motion_valid, depth.to(dtype), depth_valid)

    def pin_memory(self) -> Targets:
        return Targets(*(value.pin_memory() for value in vars(self).values()))

    def take(self, frames: Tensor) -> Targets:
        """Some frames of each clip: frames is (b, n), what comes back has n in the place of t."""
        clip = torch.arange(len(frames), device=frames.device)[:, None]
        return Targets(*(value[clip, frames] for value in vars(self).values()))

    @property
    def moving(self) -> Tensor:
        """(b, t, h, w) bool: valid pixels whose true motion is longer than MOVING_PIXELS."""
        return self.motion_valid & (self.motion.square().sum(dim=2) > MOVING_PIXELS**2)


@dataclass(frozen=True)
class LossScales:
    """What the first prediction costs on the training set; each loss term is divided by its own.

    Attributes:
        motion: pixels; mean speed of moving pixels.
        motion_all: pixels; mean speed of all valid pixels (used when motion is not balanced).
        log_depth: mean absolute difference of log depth from its median.
        log_depth_gradient: mean absolute log-depth gradient over GRADIENT_SCALES.
    """

    motion: float = 1.0
    motion_all: float = 1.0
    log_depth: float = 1.0
    log_depth_gradient: float = 1.0


def masked_mean(values: Tensor, mask: Tensor, pattern: str = "b ... -> b") -> Tensor:
    """Mean of values where mask holds, over the axes that the einops pattern drops.

    Where no value counts the mean is 0 with zero gradient. Values outside the mask may be anything, NaN too: they
    are never multiplied. (A NaN that came of differentiable operations would still spoil their gradient, so the losses
    below take invalid targets out before they compute with them.)
    """
    total = reduce(torch.where(mask, values, 0.0), pattern, "sum")
    return total / reduce(mask.to(values.dtype), pattern, "sum").clamp(min=1)


def charbonnier(error: Tensor, dim: int, epsilon: float) -> Tensor:
    """Length of a vector error, quadratic below epsilon and linear above: sqrt(|e|^2 + eps^2) - eps."""
    return (error.square().sum(dim=dim) + epsilon**2).sqrt() - epsilon


def motion_losses(motion: Tensor, targets: Targets, scales: LossScales, balanced: bool = True) -> dict[str, Tensor]:
    """End-point error of the predicted motion (b, t, 2, h, w) in pixels.

    Balanced: moving and static pixels are averaged apart and added, so that the few moving ones (about 5 % of a physics
    clip) weigh as much as all others together. Returns `motion_moving`, `motion_static` (b,) or `motion_all` (b,).
    """
    error = torch.where(targets.motion_valid[:, :, None], motion - targets.motion, 0.0)
    moving = targets.moving
    of_moving = charbonnier(error, dim=2, epsilon=MOVING_EPSILON * scales.motion)
    of_static = charbonnier(error, dim=2, epsilon=STATIC_EPSILON * scales.motion)
    if not balanced:
        both = torch.where(moving, of_moving, of_static)
        return {"motion_all": masked_mean(both, targets.motion_valid) / scales.motion_all}
    unit = scales.motion * (math.hypot(1, MOVING_EPSILON) - MOVING_EPSILON)  # of an error as long as the mean speed
    return {
        "motion_moving": masked_mean(of_moving, moving) / unit,
        "motion_static": masked_mean(of_static, targets.motion_valid & ~moving) / unit,
    }


def log_gradient_error(residual: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute gradient of a map (b, t, h, w) over GRADIENT_SCALES, between two valid pixels only; (b,)."""
    residual = torch.where(valid, residual, 0.0)
    terms = []
    for step in GRADIENT_SCALES:
        across = (residual[..., :, step:] - residual[..., :, :-step]).abs()
        down = (residual[..., step:, :] - residual[..., :-step, :]).abs()
        terms.append(masked_mean(across, valid[..., :, step:] & valid[..., :, :-step]))
        terms.append(masked_mean(down, valid[..., step:, :] & valid[..., :-step, :]))
    return torch.stack(terms).mean(dim=0)


def depth_losses(
    log_depth: Tensor, background_logit: Tensor, targets: Targets, scales: LossScales
) -> dict[str, Tensor]:
    """Losses of the predicted log depth and background logit, both (b, t, h, w).

    Returns `depth_log_error` (mean |log d - log d*|), `depth_gradient` and `depth_background` (binary cross-entropy of
    "nothing there"), each (b,) and already weighted with DEPTH_TERM_WEIGHTS, so that their sum starts near 1.
    """
    valid = targets.depth_valid
    residual = log_depth - torch.where(valid, targets.depth, 1.0).log()
    background = F.binary_cross_entropy_with_logits(
        background_logit, (~valid).to(background_logit.dtype), reduction="none"
    )
    terms = {
        "log_error": masked_mean(residual.abs(), valid) / scales.log_depth,
        "gradient": log_gradient_error(residual, valid) / scales.log_depth_gradient,
        "background": reduce(background, "b ... -> b", "mean") / math.log(2.0),
    }
    return {f"depth_{name}": DEPTH_TERM_WEIGHTS[name] * term for name, term in terms.items()}


def head_losses(
    predictions: dict[str, Tensor], targets: Targets, scales: LossScales, balanced_motion: bool = True
) -> dict[str, Tensor]:
    """All losses of both heads as a named dict of (b,) tensors.

    `motion_loss` and `depth_loss` are the sums that are trained; the other entries are their terms, for the log.
    """
    motion = motion_losses(predictions["motion"], targets, scales, balanced_motion)
    depth = depth_losses(predictions["log_depth"], predictions["background_logit"], targets, scales)
    return {"motion_loss": sum(motion.values()), "depth_loss": sum(depth.values()), **motion, **depth}


def flow_matching_loss(velocity: Tensor, latents: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """The library's flow-matching loss, per clip: mean squared error of the velocity without latent 0, times weight.

    Args:
        velocity, latents, noise: (b, c, f, h, w); latent 0 is the clean first frame, nothing is predicted there.
        weight: (b,) the scheduler's training weight of each clip's timestep.

    Returns:
        (b,); the same as `diffsynth.diffusion.loss.FlowMatchSFTLoss` of each clip.
    """
    error = velocity[:, :, 1:].float() - (noise - latents)[:, :, 1:].float()
    return reduce(error.square(), "b c f h w -> b", "mean") * weight
