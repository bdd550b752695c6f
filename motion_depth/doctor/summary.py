"""What people and scripts want to see of a check: the same numbers for the terminal, report.json and report.html."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.findings import SEVERITIES
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH
from motion_depth.data.windows import windows
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.convention import Verdict, describe, flags
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.table import MOVING_PIXELS, SPEEDS

VERSION = 1
STRIDES = (1, 2, 3, 4, 6, 8)
NOTHING = {
    "infinite": "inf",
    "not_a_number": "NaN",
    "zero": "0",
    "negative": "negative",
    "too_far": f"{FAR_DEPTH / 1000:g} km or more",
    "too_near": f"below {NEAR_DEPTH * 1000:.2g} mm",
}

Json = dict[str, object]


def summarise(check: DatasetCheck) -> Json:
    """The content of report.json but for the time; a number that is not known is NaN here and null there."""
    verdict, convention = check.verdict, assumed_convention(check)
    severities = Counter((finding.scene, finding.severity) for finding in check.findings)
    return {
        "version": VERSION,
        "base_path": str(check.base_path),
        "metadata_path": check.metadata_path and str(check.metadata_path),
        "settings": asdict(check.settings),
        "convention": {
            "measured": verdict.convention and asdict(verdict.convention),
            "flags": verdict.convention and flags(verdict.convention),
            "unknown": verdict.unknown,
            "explained": verdict.explained,
            "next_best": verdict.next_best,
            "scenes": verdict.scenes,
            "frames": verdict.frames,
        },
        "counts": {name: check.count(name) for name in SEVERITIES},
        "findings": [asdict(finding) for finding in check.findings],
        "scenes": [_scene(check, measure, convention, severities) for measure in check.measures],
        "strides": _strides(check, convention),
        "read_bytes": sum(measure.read_bytes for measure in check.measures),
        "seconds": round(check.seconds, 3),
        "workers": check.workers,
    }


def assumed_convention(check: DatasetCheck) -> MotionConvention:
    """The measured convention; the one that the check was told where none could be measured."""
    return check.verdict.convention or check.settings.convention


def _scene(check: DatasetCheck, measure: SceneMeasure, convention: MotionConvention, severities: Counter) -> Json:
    """One scene; distances in metres, speeds in pixels a frame of moving pixels, shares of all pixels."""
    settings, verdict, table = check.settings, measure.verdict, measure.table
    frames, offset = len(measure.frames), settings.convention.frame_offset
    stride, count = windows(frames, settings.num_frames, settings.frame_stride, offset)
    median, percentile = percentiles(*speeds([measure], convention), (0.5, 0.95))
    shares = {name: table[key].mean() for key, name in NOTHING.items()}
    return {
        "scene": measure.scene,
        "frames": frames,
        "height": measure.height,
        "width": measure.width,
        "stride": stride,  # of its clips
        "windows": count,  # distinct clips; 0 if the scene is too short for one
        "moving": float(np.nan_to_num(table[f"moving_{convention.units}"].mean())),
        "speed_median": median,
        "speed_95": percentile,
        "convention": describe(verdict.convention) if verdict.convention else "",  # its own best one
        "explained": verdict.explained if verdict.scenes else math.nan,  # by that, of what changes at moving pixels
        "nearest": table["nearest"].min(),
        "median": table["median"].median(),
        "farthest": table["farthest"].max(),
        "nothing": {name: share for name, share in shares.items() if share > 0},  # what stands for nothing there
        "left_out": table[f"left_out_{convention.units}"].mean(),  # motion of nothing, unless the camera rests
        "depth_kind": measure.depth_kind,  # "camera", "image_plane" or ""
        "field_of_view": measure.field_of_view,
        "errors": severities[measure.scene, "error"],
        "warnings": severities[measure.scene, "warning"],
    }


def _strides(check: DatasetCheck, convention: MotionConvention) -> list[Json]:
    """Motion between the frames of a clip at each stride at which a scene has one; speeds in pixels, of what moves.

    From one frame's motion times the stride, so an estimate.
    """
    rows = []
    for stride in STRIDES:
        clips = {each.scene: windows(len(each.frames), check.settings.num_frames, stride)[1] for each in check.measures}
        scenes = [each for each in check.measures if clips[each.scene] and each.speeds.any()]
        if scenes:
            counts, values = speeds(scenes, convention)
            moving = counts[values * stride > MOVING_PIXELS].sum() / counts.sum()
            half, most, nearly_all = percentiles(counts, values * stride, (0.5, 0.95, 0.99))
            named = {"median": half, "percentile_95": most, "percentile_99": nearly_all}
            rows.append({"stride": stride, "scenes": len(scenes), "moving": moving, **named})
    return rows


def speeds(measures: Sequence[SceneMeasure], convention: MotionConvention) -> tuple[NDArray, NDArray]:
    """How many vectors of scenes have each of some speeds, and these in pixels, (S,) both."""
    counts = sum((measure.speeds[int(convention.units != "pixels")] for measure in measures), np.zeros_like(SPEEDS))
    return counts, SPEEDS * (0.5 if convention.units == "ndc" else 1.0)


def percentiles(counts: NDArray, values: NDArray, shares: Sequence[float]) -> list[float]:
    """Speeds below which these shares of the moving pixels lie; NaN if none moves. counts: pixels of each of values."""
    moving = (values > MOVING_PIXELS) & (counts > 0)
    if not moving.any():
        return [math.nan for _ in shares]
    return np.quantile(values[moving], shares, weights=counts[moving], method="inverted_cdf").tolist()


def headline(check: DatasetCheck) -> str:
    """How many errors and warnings there are."""
    counts = {name: check.count(name) for name in SEVERITIES if name != "note"}
    parts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    many = len(check.measures)
    return f"{' and '.join(parts)} in {many} scenes." if parts else f"Nothing is wrong with these {many} scenes."


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
