"""Depth: metres along the ray (distance to camera), and where nothing is there.

Axes: b clip, t frame, h w pixel; depth is (..., t, h, w). The head says the logarithm of depth, and a background logit.

Sources: gradient matching over several scales (MegaDepth, Li and Snavely 2018); AbsRel, delta1, RMSE (Eigen et al.
2014); SILog = 100 sqrt(mean g^2 - (mean g)^2) with g the difference of logarithms (KITTI depth benchmark).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from motion_depth.data.clip_frame import ClipFrame
from motion_depth.data.motion import warp
from motion_depth.data.scene import DEPTH
from motion_depth.pictures.colours import Bar, ErrorScale, grey_out, look_up, two_digits, within
from motion_depth.readouts.masked import count, hits, masked_mean, total
from motion_depth.readouts.readout import Predictions, Readout, Statistics
from motion_depth.readouts.targets import Target, Targets

GRADIENT_SCALES = (1, 2, 4, 8)  # pixels between the two ends of a gradient
TERM_WEIGHTS = {"log_error": 0.8, "gradient": 0.1, "background": 0.1}
SAMPLED_DEPTHS = 20_000  # depths per clip that the median is taken over
DELTA1 = 1.25  # a depth within this factor of the truth counts for delta1
SAME_SURFACE = 0.05  # change of log depth along the true motion above which the point was hidden before
ERROR_PERCENT = 25.0  # end of the scale for errors; delta1 counts about these pixels as wrong
COLOURS = "turbo_r"  # red is near, blue is far
UNITS = "metres along the ray (distance to camera)"


class Depth(Readout):
    name = "depth"
    kinds = (DEPTH,)
    channels, map_channels = 2, ()
    meaning = "natural logarithm of metres along the ray (distance to camera)"
    scales = ("log_depth", "log_depth_gradient")
    numbers: ClassVar = {"log_depth": (-20.0, 20.0), "background_share": (0.0, 1.0)}
    maps = ("mean_depth",)
    means: ClassVar = {
        "abs_rel": ("abs_rel", "depth_pixels"),
        "delta1": ("delta1", "depth_pixels"),
        "background_iou": ("background_hits", "background_union"),
        "temporal_consistency": ("temporal_error", "temporal_pixels"),
    }
    columns = ("abs_rel", "abs_rel_baseline", "delta1", "rmse", "silog", "background_iou", "temporal_consistency")
    baselines: ClassVar = {"baseline": "mean depth"}
    headline: ClassVar = {"abs_rel": "AbsRel"}
    unit, nothing, plot = "", "nothing has a depth", "Depth: mean relative error"

    def target(self, frame: ClipFrame) -> Target:
        """Metres along the ray (h, w), not their logarithm; valid where something is there (`scene.is_there`)."""
        depth = frame.crop.nearest(torch.from_numpy(frame.array(DEPTH)))
        return Target(depth, depth > 0)

    def decode(self, raw: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """`log_depth`: (b, t, h, w) log metres, at first the training set's median everywhere; a raw output of 1 is its
        mean absolute difference from that. `background_logit`: (b, t, h, w), above 0 where nothing is at any distance.
        """
        log_depth = raw[:, :, 0] * statistics.scales["log_depth"] + statistics.numbers["log_depth"]
        return {"log_depth": log_depth, "background_logit": raw[:, :, 1]}

    def losses(
        self, predictions: Predictions, targets: Targets, scales: Mapping[str, float], balanced: bool
    ) -> dict[str, Tensor]:
        """`depth_log_error` (mean |log d - log d*|), `depth_gradient` (of the same difference, over GRADIENT_SCALES)
        and `depth_background` (binary cross-entropy of "nothing there"); weighted with TERM_WEIGHTS.
        """
        depth, valid = targets["depth"]
        logit = predictions["background_logit"]
        residual = predictions["log_depth"] - torch.where(valid, depth, 1.0).log()
        background = F.binary_cross_entropy_with_logits(logit, (~valid).to(logit.dtype), reduction="none")
        terms = {
            "log_error": masked_mean(residual.abs(), valid) / scales["log_depth"],
            "gradient": log_gradient_error(residual, valid) / scales["log_depth_gradient"],
            "background": reduce(background, "b ... -> b", "mean") / math.log(2.0),
        }
        return {f"depth_{name}": TERM_WEIGHTS[name] * term for name, term in terms.items()}

    def measure(self, targets: Targets) -> dict[str, Tensor]:
        depth, valid = targets["depth"]
        found = depth[valid]
        log_depth = torch.where(valid, depth, 1.0).log()
        return {
            "depths": found[:: max(1, len(found) // SAMPLED_DEPTHS)].log(),
            "gradient": log_gradient_error(log_depth[None], valid[None])[0],
            "sum": (depth * valid).sum(dim=0),
            "count": valid.sum(dim=0),
            "pixels": torch.tensor(valid.numel()),
        }

    def statistics(self, clips: Sequence[dict[str, Tensor]]) -> Statistics:
        """`log_depth`: median of log depth, and mean absolute difference from it; `log_depth_gradient`: mean absolute
        gradient of log depth over GRADIENT_SCALES. `background_share`: of pixels with nothing there. `mean_depth`:
        metres, per-pixel mean over frames and clips; where no clip ever hit anything, the median.
        """
        depths = torch.cat([clip["depths"] for clip in clips]) if clips else torch.empty(0)
        if not len(depths):
            raise ValueError("distance_to_camera: no pixel of the training clips has a valid depth")
        median = float(depths.median())
        sums, counts, pixels = (sum(clip[name] for clip in clips) for name in ("sum", "count", "pixels"))
        scales = {
            "log_depth": max(float((depths - median).abs().mean()), 1e-2),
            "log_depth_gradient": max(float(torch.stack([clip["gradient"] for clip in clips]).mean()), 1e-3),
        }
        numbers: ClassVar = {"log_depth": median, "background_share": 1 - float(counts.sum()) / int(pixels)}
        mean_depth = torch.where(counts > 0, sums / counts.clamp(min=1), torch.tensor(median).exp())
        return Statistics(scales, numbers, {"mean_depth": mean_depth})

    def describe(self, numbers: Mapping[str, float]) -> str:
        return f"median depth {math.exp(numbers['log_depth']):.3g} m"

    def sums(self, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
        """Of depth, of "nothing there" (intersection and union of predicted and true), and of how depth flickers."""
        log_depth, logit = predictions["log_depth"], predictions["background_logit"]
        predicted, true = logit > 0, ~targets["depth"].valid
        return {
            **self._sums(log_depth.exp(), targets["depth"]),
            "background_hits": hits(predicted & true, logit, torch.ones_like(true)),
            "background_union": count(predicted | true),
            **temporal_sums(log_depth, targets),
        }

    def _sums(self, predicted: Tensor, truth: Target) -> dict[str, Tensor]:
        """predicted: metres, above 0."""
        valid = truth.valid
        depth = torch.where(valid, truth.map, 1.0)
        log_ratio = predicted.log() - depth.log()
        factor = torch.maximum(predicted / depth, depth / predicted)
        return {
            "depth_pixels": count(valid),
            "abs_rel": total((predicted - depth).abs() / depth, valid),
            "delta1": hits(factor < DELTA1, factor, valid),
            "squared": total((predicted - depth).square(), valid),
            "log_ratio": total(log_ratio, valid),
            "log_ratio_squared": total(log_ratio.square(), valid),
        }

    def baseline_sums(self, targets: Targets, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The training set's per-pixel mean depth."""
        truth = targets["depth"]
        return {"baseline": self._sums(maps["mean_depth"].to(truth.map).expand_as(truth.map), truth)}

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float | None]:
        if "squared" not in sums:
            return super().metrics(sums)
        pixels = sums["depth_pixels"]
        variance = sums["log_ratio_squared"] / pixels - (sums["log_ratio"] / pixels) ** 2 if pixels else None
        return {
            **super().metrics(sums),
            "rmse": float(sums["squared"] / pixels) ** 0.5 if pixels else None,
            "silog": 100 * max(float(variance), 0.0) ** 0.5 if pixels else None,
        }

    def view(self, predictions: Predictions) -> Target:
        return Target(predictions["log_depth"].exp(), predictions["background_logit"] <= 0)

    def has_value(self, target: Target) -> Tensor:
        """Where there is a finite distance above 0."""
        depth = target.map.detach()
        return within(depth.isfinite() & (depth > 0), target.valid)

    def scale(self, target: Target) -> DepthScale:
        """From the 1st to the 99th percentile of the distances, rounded outward to two digits; 1 to 10 m if there is
        none. Never empty: far is at least 1.2 times near.
        """
        distances = target.map.detach().float().cpu().numpy()[self.has_value(target).numpy()]
        if not distances.size:
            return DepthScale(1.0, 10.0)
        near, far = (float(distance) for distance in np.percentile(distances, (1, 99)))
        middle = math.sqrt(near * far)
        spread = max(far / middle, math.sqrt(1.2))
        return DepthScale(two_digits(middle / spread, math.floor), two_digits(middle * spread, math.ceil))

    def error(self, predicted: Tensor, truth: Target, scale: DepthScale) -> tuple[Tensor, ErrorScale]:
        """|predicted - true| / true in percent."""
        depth = truth.map.float().cpu()
        percent = 100 * (predicted.detach().float().cpu() - depth).abs() / depth.where(self.has_value(truth), 1.0)
        return percent, ErrorScale(ERROR_PERCENT, "%")

    def arrays(self, predictions: Predictions) -> dict[str, np.ndarray]:
        """`depth` (t, h, w) float32, `valid` (t, h, w) bool (something is there) and `units`."""
        depth, there = self.view(predictions)
        return {"depth": depth.numpy(), "valid": there.numpy(), "units": np.str_(UNITS)}


@dataclass(frozen=True)
class DepthScale:
    """Distances on a logarithmic scale from near (red) to far (blue), in metres."""

    near: float
    far: float

    def colour(self, values: Tensor, valid: Tensor | None = None) -> np.ndarray:
        """(t, h, w) metres to (t, h, w, 3)."""
        depth = values.detach().float().cpu()
        valid = within(depth.isfinite() & (depth > 0), valid)
        share = torch.log(depth.masked_fill(~valid, self.near) / self.near) / math.log(self.far / self.near)
        return grey_out(look_up(share, COLOURS), valid)

    def legend(self) -> Bar:
        middle = f"{math.sqrt(self.near * self.far):.2g} m"
        labels = f"≥ {self.far:g} m", middle, f"≤ {self.near:g} m"
        return Bar(lambda share: self.colour(self.near * (self.far / self.near) ** share), labels)


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


def temporal_sums(log_depth: Tensor, targets: Targets) -> dict[str, Tensor]:
    """How the predicted depth flickers: error of its change along the true motion, per frame, (b, t) float64.

    For a point seen in frames t-1 and t: |change of predicted log depth - change of true log depth|. Points that the
    true depth shows to have been hidden in frame t-1 are left out. A depth that is wrong but steady scores 0.
    """
    (motion, has_motion), (depth, has_depth) = targets["motion"], targets["depth"]
    truth = torch.where(has_depth, depth, 1.0).log()
    stacked = torch.stack([log_depth, truth, has_depth.to(truth.dtype)], dim=2)
    before, flow = (rearrange(x, "b t ... -> (b t) ...") for x in (stacked[:, :-1], motion[:, 1:]))
    warped, inside = warp(before, flow)
    warped = rearrange(warped, "(b t) c h w -> b t c h w", b=len(log_depth))
    inside = rearrange(inside, "(b t) h w -> b t h w", b=len(log_depth))
    change, true_change = log_depth[:, 1:] - warped[:, :, 0], truth[:, 1:] - warped[:, :, 1]
    both = has_motion[:, 1:] & has_depth[:, 1:] & inside & (warped[:, :, 2] == 1)
    both &= true_change.abs() < SAME_SURFACE
    sums = {"temporal_error": total((change - true_change).abs(), both), "temporal_pixels": count(both)}
    return {name: F.pad(value, (1, 0)) for name, value in sums.items()}  # frame 0 has none before it
