"""What a training set looks like: where the heads start, how losses are normalised, and the trivial depth baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from motion_depth.readouts.losses import LossScales, Targets, log_gradient_error

SAMPLED_DEPTHS = 20_000  # depths per clip that the median is taken over


@dataclass(frozen=True)
class Statistics:
    """Measured on training clips only.

    Attributes:
        log_depth: median of log depth, log metres.
        scales: see `LossScales`.
        moving_share: share of valid pixels that move.
        background_share: share of pixels with nothing there.
        mean_depth: (h, w) metres, per-pixel mean over frames and clips; where no clip ever hit anything, the median.
    """

    log_depth: float
    scales: LossScales
    moving_share: float
    background_share: float
    mean_depth: Tensor

    def to_json(self) -> dict:
        """Everything but the map, which is saved as a tensor."""
        return {
            "log_depth": self.log_depth,
            "scales": asdict(self.scales),
            "moving_share": self.moving_share,
            "background_share": self.background_share,
        }

    @staticmethod
    def from_json(values: dict, mean_depth: Tensor) -> Statistics:
        return Statistics(**{**values, "scales": LossScales(**values["scales"])}, mean_depth=mean_depth)


def measure(targets: Iterable[Targets]) -> Statistics:
    """Goes over unbatched targets (t, ...) once, one clip in memory at a time.

    Raises:
        ValueError: no pixel of any clip has a valid depth, or something is not finite.
    """
    depths, gradients = [], []
    depth_sum = depth_count = pixels = None
    speed_sum = speed_count = moving_sum = moving_count = 0.0
    for clip in targets:
        clip = clip.to("cpu")
        valid, moving = clip.depth_valid, Targets(*(value[None] for value in vars(clip).values())).moving[0]
        found = clip.depth[valid]
        depths.append(found[:: max(1, len(found) // SAMPLED_DEPTHS)].log())
        log_depth = torch.where(valid, clip.depth, 1.0).log()
        gradients.append(log_gradient_error(log_depth[None], valid[None])[0])
        sums, counts = (clip.depth * valid).sum(dim=0), valid.sum(dim=0)
        depth_sum = sums if depth_sum is None else depth_sum + sums
        depth_count = counts if depth_count is None else depth_count + counts
        pixels = len(valid) if pixels is None else pixels + len(valid)
        speed = clip.motion.norm(dim=1)
        speed_sum += float(speed[clip.motion_valid].sum())
        speed_count += int(clip.motion_valid.sum())
        moving_sum += float(speed[moving].sum())
        moving_count += int(moving.sum())
    all_depths = torch.cat(depths) if depths else torch.empty(0)
    if not len(all_depths):
        raise ValueError("distance_to_camera: no pixel of the training clips has a valid depth")
    median = float(all_depths.median())
    mean_depth = torch.where(depth_count > 0, depth_sum / depth_count.clamp(min=1), torch.tensor(median).exp())
    # A set where nothing moves still trains: one pixel is then the unit of motion.
    motion = moving_sum / moving_count if moving_count else 1.0
    scales = LossScales(
        motion=motion,
        motion_all=max(speed_sum / max(speed_count, 1), 1e-3),
        log_depth=max(float((all_depths - median).abs().mean()), 1e-2),
        log_depth_gradient=max(float(torch.stack(gradients).mean()), 1e-3),
    )
    for name, value in {"median log depth": median, **asdict(scales), "mean depth": float(mean_depth.sum())}.items():
        if not math.isfinite(value):
            raise ValueError(
                f"statistics of the training clips: {name} is {value}, and no loss divided by it would train; "
                "tools/make_metadata.py --check says which files hold such values"
            )
    return Statistics(
        log_depth=median,
        scales=scales,
        moving_share=moving_count / max(speed_count, 1),
        background_share=1 - float(depth_count.sum()) / (pixels * depth_count.numel()),
        mean_depth=mean_depth,
    )
