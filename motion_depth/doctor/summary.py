"""What people and scripts want to see of a check: the same numbers for the terminal, report.json and report.html."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.convention import Verdict, flags
from motion_depth.doctor.dataset_rules import describe, moving_share
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.quick import windows
from motion_depth.doctor.table import MOVING_PIXELS, speed_of_bin

STRIDES = (1, 2, 3, 4, 6, 8)
NOTHING = {
    "infinite": "inf",
    "not_a_number": "NaN",
    "zero": "0",
    "negative": "negative",
    "too_far": f"{FAR_DEPTH / 1000:g} km or more",
    "too_near": f"below {NEAR_DEPTH * 1000:.2g} mm",
}


@dataclass(frozen=True)
class SceneSummary:
    """One scene; distances in metres, speeds in pixels a frame of moving pixels, shares of all pixels. NaN: not known.

    windows: distinct clips; 0 if the scene is too short for one. stride: of its clips. convention: the scene's own best
    one in words, "" if it cannot be told; explained: the share of what changes at moving pixels that it explains.
    nothing: what stands for nothing there, and for which share of pixels. depth_kind: "camera", "image_plane" or "".
    left_out: share of pixels whose motion takes no part, because nothing is there and the camera is not known to rest.
    """

    scene: str
    frames: int
    height: int
    width: int
    stride: int
    windows: int
    moving: float
    speed_median: float
    speed_95: float
    convention: str
    explained: float
    nearest: float
    median: float
    farthest: float
    nothing: dict[str, float]
    left_out: float
    depth_kind: str
    field_of_view: float
    errors: int
    warnings: int


@dataclass(frozen=True)
class StrideSummary:
    """Motion between the frames of a clip at a stride: share of pixels that move, and speeds of those, in pixels."""

    stride: int
    scenes: int
    moving: float
    median: float
    percentile_95: float
    percentile_99: float


def convention_sentence(verdict: Verdict) -> str:
    """What was measured, how surely, and which flags to pass."""
    if verdict.convention is None:
        return "The motion convention cannot be told from these scenes."
    told = flags(verdict.convention)
    judged = f"{verdict.frames} frames of {verdict.scenes} scenes"
    if verdict.forward_flow:
        return (
            f"The motion files hold forward flow, the motion from each frame to the next; "
            f"{told or 'the documented convention'} takes it for backward flow. Following the vectors explains "
            f"{verdict.explained_next:.0%} of what changes to the next frame, and read as backward flow "
            f"{verdict.explained:.0%} of what changed since the frame before ({judged})."
        )
    sure = "every other reading is ruled out" if len(verdict.fitting) == 1 else f"open: {', '.join(verdict.unknown)}"
    which = f"pass {told}" if told else "the documented convention, no flag needed"
    return (
        f"The motion files hold {describe(verdict.convention)}: {which}. Following the vectors explains "
        f"{verdict.explained:.0%} of what changes at moving pixels, the next best reading {verdict.next_best:.0%} "
        f"({judged}; {sure})."
    )


def summarise_scenes(check: DatasetCheck) -> list[SceneSummary]:
    convention = check.verdict.convention or check.settings.convention
    severities = Counter((finding.scene, finding.severity) for finding in check.findings)
    return [_summarise(check, measure, convention, severities) for measure in check.measures]


def _summarise(
    check: DatasetCheck, measure: SceneMeasure, convention: MotionConvention, severities: Counter
) -> SceneSummary:
    settings, verdict, frames = check.settings, check.verdicts[measure.scene], len(measure.frames)
    stride, count = windows(frames, settings.num_frames, settings.frame_stride, settings.convention.frame_offset)
    speeds, factor = _speeds(measure, convention)
    median, percentile = _percentiles(speeds, factor, (0.5, 0.95))
    planes = measure.planes
    return SceneSummary(
        scene=measure.scene,
        frames=frames,
        height=measure.height,
        width=measure.width,
        stride=stride,
        windows=count,
        moving=moving_share(measure, convention.units),
        speed_median=median,
        speed_95=percentile,
        convention=describe(verdict.convention) if verdict.convention else "",
        explained=verdict.explained if verdict.scenes else math.nan,
        nearest=_over_frames(measure, "nearest", np.nanmin),
        median=_over_frames(measure, "median", np.nanmedian),
        farthest=_over_frames(measure, "farthest", np.nanmax),
        nothing={name: share for key, name in NOTHING.items() if (share := _over_frames(measure, key, np.nanmean)) > 0},
        left_out=_over_frames(measure, f"left_out_{convention.units}", np.nanmean),
        depth_kind=planes.kind if planes else "",
        field_of_view=planes.field_of_view if planes and planes.kind == "camera" else math.nan,
        errors=severities[measure.scene, "error"],
        warnings=severities[measure.scene, "warning"],
    )


def summarise_strides(check: DatasetCheck) -> list[StrideSummary]:
    """For each stride at which a scene still has a clip: one frame's motion times the stride, so an estimate."""
    convention = check.verdict.convention or check.settings.convention
    found = []
    for stride in STRIDES:
        needed = (check.settings.num_frames - 1) * stride + 1
        scenes = [measure for measure in check.measures if len(measure.frames) >= needed and measure.speeds.any()]
        if scenes:
            factor = _speeds(scenes[0], convention)[1] * stride
            speeds = sum(_speeds(measure, convention)[0] for measure in scenes)
            share = speeds[_bins(speeds) * factor > MOVING_PIXELS].sum() / max(speeds.sum(), 1)
            percentiles = _percentiles(speeds, factor, (0.5, 0.95, 0.99))
            found.append(StrideSummary(stride, len(scenes), float(share), *percentiles))
    return found


def _speeds(measure: SceneMeasure, convention: MotionConvention) -> tuple[NDArray, float]:
    """The counts that hold for a convention, and the factor that its bins' speeds are to be multiplied by."""
    return measure.speeds[int(convention.units != "pixels")], 0.5 if convention.units == "ndc" else 1.0


def _bins(speeds: NDArray) -> NDArray:
    """The middle of each bin; 0 for the first, which holds what hardly moves."""
    middles = speed_of_bin(np.arange(len(speeds)) + 0.5)
    middles[0] = 0.0
    return middles


def _percentiles(speeds: NDArray, factor: float, shares: tuple[float, ...]) -> list[float]:
    """Speeds below which these shares of the moving pixels lie; NaN if none moves."""
    values = _bins(speeds) * factor
    moving = np.where(values > MOVING_PIXELS, speeds, 0)
    if not moving.any():
        return [math.nan] * len(shares)
    cumulative = moving.cumsum() / moving.sum()
    return [float(values[np.searchsorted(cumulative, share)]) for share in shares]


def _over_frames(measure: SceneMeasure, column: str, how) -> float:
    values = measure.table.get(column, np.array([np.nan]))
    return float(how(values)) if not np.isnan(values).all() else math.nan
