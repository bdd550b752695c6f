"""Metrics of motion and depth at full resolution, in pixels and metres, without any alignment.

Everything is first summed per frame, (b, t), with the number of pixels beside it; means are taken once, over whatever
frames, clips and scenes belong together, so every pixel counts the same however the sums were grouped.

A prediction that is NaN at a pixel that counts makes every sum over it NaN, and so the metric: it is never left out.

Definitions: AbsRel, delta1, RMSE (Eigen et al. 2014); SILog = 100 sqrt(mean g^2 - (mean g)^2) with g the difference
of logarithms (KITTI depth benchmark); EPE (Middlebury optical flow).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from motion_depth.data.motion import warp
from motion_depth.readouts.losses import Targets

DELTA1 = 1.25  # a depth within this factor of the truth counts for delta1
OUTLIER_PIXELS = 1.0  # a motion error above this is an outlier
SAME_SURFACE = 0.05  # change of log depth along the true motion above which the point was hidden before

# metric -> (sum, count) for those that are plain means
MEANS = {
    "abs_rel": ("abs_rel", "depth_pixels"),
    "delta1": ("delta1", "depth_pixels"),
    "epe": ("epe", "motion_pixels"),
    "moving_epe": ("moving_epe", "moving_pixels"),
    "outlier_1px": ("outlier_1px", "motion_pixels"),
    "background_iou": ("background_hits", "background_union"),
    "temporal_consistency": ("temporal_error", "temporal_pixels"),
}


def _count(mask: Tensor) -> Tensor:
    return mask.sum(dim=(-2, -1)).double()


def _total(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(dim=(-2, -1), dtype=torch.float64)


def _hits(hit: Tensor, compared: Tensor, mask: Tensor) -> Tensor:
    """How often a comparison holds within the mask; NaN if what was compared is NaN there, which compares as False."""
    return _total(torch.where(compared.isnan(), compared, hit.to(compared.dtype)), mask)


def motion_sums(motion: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Sums of motion errors per frame, (b, t) float64.

    Args:
        motion: (b, t, 2, h, w) pixels, the prediction.
    """
    error = (motion - targets.motion).norm(dim=2)
    valid, moving = targets.motion_valid, targets.moving
    return {
        "motion_pixels": _count(valid),
        "moving_pixels": _count(moving),
        "epe": _total(error, valid),
        "moving_epe": _total(error, moving),
        "outlier_1px": _hits(error > OUTLIER_PIXELS, error, valid),
    }


def depth_sums(depth: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Sums of depth errors per frame, (b, t) float64.

    Args:
        depth: (b, t, h, w) metres, above 0: the prediction.
    """
    valid = targets.depth_valid
    truth = torch.where(valid, targets.depth, 1.0)
    log_ratio = depth.log() - truth.log()
    factor = torch.maximum(depth / truth, truth / depth)
    return {
        "depth_pixels": _count(valid),
        "abs_rel": _total((depth - truth).abs() / truth, valid),
        "delta1": _hits(factor < DELTA1, factor, valid),
        "squared": _total((depth - truth).square(), valid),
        "log_ratio": _total(log_ratio, valid),
        "log_ratio_squared": _total(log_ratio.square(), valid),
    }


def background_sums(background_logit: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Intersection and union of predicted and true "nothing there", per frame, (b, t) float64."""
    predicted, true = background_logit > 0, ~targets.depth_valid
    hits = _hits(predicted & true, background_logit, torch.ones_like(true))
    return {"background_hits": hits, "background_union": _count(predicted | true)}


def temporal_sums(log_depth: Tensor, targets: Targets) -> dict[str, Tensor]:
    """How the predicted depth flickers: error of its change along the true motion, per frame, (b, t) float64.

    For a point seen in frames t-1 and t: |change of predicted log depth - change of true log depth|. Points that the
    true depth shows to have been hidden in frame t-1 are left out. A depth that is wrong but steady scores 0.
    """
    b = log_depth.shape[0]
    truth = torch.where(targets.depth_valid, targets.depth, 1.0).log()
    stacked = torch.stack([log_depth, truth, targets.depth_valid.to(truth.dtype)], dim=2)
    before, motion = (rearrange(x, "b t ... -> (b t) ...") for x in (stacked[:, :-1], targets.motion[:, 1:]))
    warped, inside = warp(before, motion)
    warped = rearrange(warped, "(b t) c h w -> b t c h w", b=b)
    inside = rearrange(inside, "(b t) h w -> b t h w", b=b)
    change, true_change = log_depth[:, 1:] - warped[:, :, 0], truth[:, 1:] - warped[:, :, 1]
    both = targets.motion_valid[:, 1:] & targets.depth_valid[:, 1:] & inside & (warped[:, :, 2] == 1)
    both &= true_change.abs() < SAME_SURFACE
    sums = {"temporal_error": _total((change - true_change).abs(), both), "temporal_pixels": _count(both)}
    return {name: torch.nn.functional.pad(value, (1, 0)) for name, value in sums.items()}  # frame 0 has none before it


def prediction_sums(predictions: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """All sums of the heads' predictions (see `MotionDepthHeads.forward`), per frame, (b, t) float64."""
    return {
        **motion_sums(predictions["motion"], targets),
        **depth_sums(predictions["log_depth"].exp(), targets),
        **background_sums(predictions["background_logit"], targets),
        **temporal_sums(predictions["log_depth"], targets),
    }


def baseline_sums(targets: Targets, mean_depth: Tensor) -> dict[str, dict[str, Tensor]]:
    """Sums of the trivial predictions: name of the baseline -> sums per frame.

    `baseline`: the training set's per-pixel mean depth (h, w), and no motion. `constant_velocity`: the true motion of
    the frame before, at the same pixel (none before frame 1).
    """
    previous = torch.roll(torch.where(targets.motion_valid[:, :, None], targets.motion, 0.0), 1, dims=1)
    previous[:, 0] = 0
    depth = mean_depth.to(targets.depth).expand_as(targets.depth)
    return {
        "baseline": {**motion_sums(torch.zeros_like(targets.motion), targets), **depth_sums(depth, targets)},
        "constant_velocity": motion_sums(previous, targets),
    }


def finish(sums: Mapping[str, float]) -> dict[str, float | None]:
    """Sums over any set of frames to metrics; None where no pixel counts, inf or NaN where a sum is. Only metrics whose
    sums are there."""
    metrics = {
        name: float(sums[total] / sums[count]) if sums[count] else None
        for name, (total, count) in MEANS.items()
        if total in sums
    }
    if "squared" in sums:
        pixels = sums["depth_pixels"]
        metrics["rmse"] = float(sums["squared"] / pixels) ** 0.5 if pixels else None
        variance = sums["log_ratio_squared"] / pixels - (sums["log_ratio"] / pixels) ** 2 if pixels else None
        metrics["silog"] = 100 * max(float(variance), 0.0) ** 0.5 if pixels else None
    return metrics
