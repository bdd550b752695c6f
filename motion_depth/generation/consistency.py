"""Does a video do what its own motion and depth say? Measured without any ground truth.

Motion is believed if each frame's colours are found again where its vectors lead in the frame before. Depth is believed
if a point keeps its distance along its way, but for what it comes nearer in one frame. Both stand beside the same
measure without motion, over the same pixels: those whose vectors stay inside the picture. What an object uncovers can
be found nowhere in the frame before, so even true motion leaves an error.

Axes: t frame, h w pixel. Motion is backward flow in pixels, depth metres along the ray.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.data.motion import warp
from motion_depth.readouts.targets import Targets

STEADY = 0.05  # change of log depth within which a point counts as the same surface


def self_consistency(frames: Tensor, maps: Targets) -> dict[str, float | None]:
    """How well a video agrees with motion and depth that were read off it.

    Args:
        frames: (t, h, w, 3) uint8.
        maps: of one clip; depth is above 0 everywhere, and valid where something is there.

    Returns:
        Means over all pixels, None where no pixel counts. Those of colour are in levels of 0 .. 255:
        `warp_error`: difference between a pixel and the point in the frame before to which its vector leads.
        `still_error`: difference to the same pixel of the frame before.
        `explained`: 1 - warp_error / still_error; 1 is perfect, 0 no better than no motion, below 0 worse.
        `moving_warp_error`, `moving_still_error`, `moving_explained`: the same over pixels said to move.
        `moving_share`: their share of the pixels.
        `depth_change`, `depth_change_still`: |change of log depth| from the frame before, along the motion and at the
        same pixel; `depth_steady`: share of the points whose change along the motion is below STEADY.
    """
    motion, (depth, there) = maps["motion"].map, maps["depth"]
    sums: dict[str, float] = {}
    for t in range(1, len(frames)):
        for name, value in _frame_sums(frames, motion, depth, there, t).items():
            sums[name] = sums.get(name, 0.0) + value

    def mean(total: str, count: str) -> float | None:
        return sums[total] / sums[count] if sums.get(count) else None

    found: dict[str, float | None] = {}
    for prefix in ("", "moving_"):
        moved, still = (mean(f"{prefix}{name}", f"{prefix}pixels") for name in ("warp", "still"))
        found[f"{prefix}warp_error"], found[f"{prefix}still_error"] = moved, still
        found[f"{prefix}explained"] = 1 - moved / still if still else None
    found["moving_share"] = mean("moving_pixels", "pixels")
    found["depth_change"] = mean("depth_change", "depth_pixels")
    found["depth_change_still"] = mean("depth_change_still", "depth_pixels")
    found["depth_steady"] = mean("depth_steady", "depth_pixels")
    return found


def _frame_sums(frames: Tensor, motion: Tensor, depth: Tensor, there: Tensor, t: int) -> dict[str, float]:
    """Sums over the pixels of frame t."""
    colours = rearrange(frames[t - 1 : t + 1].float(), "t h w c -> t c h w")
    values = torch.cat([colours, depth[t - 1 : t + 1, None].log(), there[t - 1 : t + 1, None].float()], dim=1)
    before, now = values[0], values[1]
    warped, inside = warp(before[None], motion[t][None])
    warped, inside = warped[0], inside[0]
    moving = inside & (motion[t].norm(dim=0) > MOVING_PIXELS)
    # Bilinear sampling between something and nothing gives a share below 1: such a point has no depth.
    both = inside & there[t] & (warped[4] == 1) & there[t - 1]
    moved, still = (now[:3] - warped[:3]).abs().mean(dim=0), (now[:3] - before[:3]).abs().mean(dim=0)
    change, change_still = (now[3] - warped[3]).abs(), (now[3] - before[3]).abs()
    return {
        "pixels": _total(inside),
        "warp": _total(moved[inside]),
        "still": _total(still[inside]),
        "moving_pixels": _total(moving),
        "moving_warp": _total(moved[moving]),
        "moving_still": _total(still[moving]),
        "depth_pixels": _total(both),
        "depth_change": _total(change[both]),
        "depth_change_still": _total(change_still[both]),
        "depth_steady": _total(change[both] < STEADY),
    }


def _total(values: Tensor) -> float:
    return float(values.sum(dtype=torch.float64))


def difference(maps: Targets, others: Targets) -> dict[str, float | None]:
    """How far one reading is from another, which stands for the truth: a forecast from what the video then shows.

    Returns:
        `motion_px`: mean length of the difference of motion over frames 1 on; `moving_motion_px`: the same over pixels
        that the other says move; `depth_rel`: mean |depth - other| / other.
    """
    motion, other_motion = maps["motion"].map, others["motion"].map
    depth, other_depth = maps["depth"].map, others["depth"].map
    error = (motion - other_motion)[1:].norm(dim=1)
    moving = other_motion[1:].norm(dim=1) > MOVING_PIXELS
    return {
        "motion_px": float(error.mean()),
        "moving_motion_px": float(error[moving].mean()) if moving.any() else None,
        "depth_rel": float(((depth - other_depth).abs() / other_depth).mean()),
    }
