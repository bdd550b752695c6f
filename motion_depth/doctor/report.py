"""A check as report.json, and the same numbers as lines for the terminal and as a page that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from motion_depth.data.convention import MOVING_PIXELS, camera_rests
from motion_depth.data.findings import SEVERITIES
from motion_depth.data.motion import MotionConvention, decode_motion
from motion_depth.data.scene import DEPTH, FAR_DEPTH, MOTION, NEAR_DEPTH, RGB, is_there
from motion_depth.data.windows import windows
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.convention import Verdict, describe, flags
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.table import SPEEDS
from motion_depth.files.atomic import write_json, write_whole
from motion_depth.readouts import READOUTS
from motion_depth.readouts.motion import MotionScale
from motion_depth.readouts.targets import Target

SHOWN_TOGETHER = 5  # findings of one kind beyond this many are folded away in the page
GAP, GAP_GREY = 2, 209  # pixels between the parts of a thumbnail; what rests is white there

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


def write_report(check: DatasetCheck, folder: Path) -> Path:
    """Write report.html and report.json. Returns the page's path."""
    write_json(folder / "report.json", summarise(check) | {"checked": _now()})
    write_whole(folder / "report.html", html(check))
    return folder / "report.html"


def text(check: DatasetCheck) -> str:
    """What is printed: a line per scene, the convention, motion per stride, and every finding."""
    return _render(check, "report.txt")


def html(check: DatasetCheck) -> str:
    """The page. All text is escaped; pictures stand in it; it asks for nothing else."""
    return _render(check, "report.html")


def _render(check: DatasetCheck, template: str) -> str:
    groups = defaultdict(list)
    for finding in check.findings:
        groups[finding.severity, finding.code].append(finding)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {"percent": percent, "metres": "{:.3g}".format, "number": "{:.1f}".format}
    environment.filters |= {name: _or_dash(how) for name, how in formats.items()}
    environment.filters["relative"] = lambda message: _relative(check, message)
    return environment.get_template(template).render(
        summarise(check),
        check=check,
        checked=_now(),
        headline=headline(check),
        state=next((name for name in ("error", "warning") if check.count(name)), "ok"),
        sentence=convention_sentence(check.verdict),
        groups=groups,
        shown_together=SHOWN_TOGETHER,
        thumbnail=lambda measure: thumbnail(measure, assumed_convention(check)),
    )


def percent(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def _or_dash(how: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: "–" if math.isnan(value) else how(value)


def _relative(check: DatasetCheck, message: str) -> str:
    """A message with the dataset's own folder left out of its paths."""
    for base in (check.base_path.resolve(), check.base_path):
        message = message.replace(f"{base}{os.sep}", "")
    return message


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def thumbnail(measure: SceneMeasure, convention: MotionConvention) -> str:
    """Picture, motion and depth of one frame side by side, as a data URI; "" if there is no such frame."""
    if measure.thumbnail is None:
        return ""
    rgb, motion, depth = (measure.thumbnail[kind] for kind in (RGB, MOTION, DEPTH))
    there = is_there(depth)
    flow, valid = decode_motion(motion, convention)
    if not camera_rests(motion, there, convention.scale(measure.height, measure.width)):
        valid &= torch.from_numpy(there)
    if convention.units != "pixels":  # the vectors are shares of the whole picture's size, not of the thumbnail's
        flow *= torch.tensor([measure.width / flow.shape[2], measure.height / flow.shape[1]])[:, None, None]
    flow, valid, depth, there = (torch.as_tensor(each)[None] for each in (flow, valid, depth, there))
    (moves,) = MotionScale(max(float(torch.hypot(*flow[0]).max()), 1.0)).colour(flow, valid)
    (distances,) = READOUTS["depth"].scale(Target(depth, there)).colour(depth, there)
    gap = np.full((len(rgb), GAP, 3), GAP_GREY, np.uint8)
    data, picture = io.BytesIO(), Image.fromarray(np.concatenate([rgb, gap, moves, gap, distances], axis=1))
    picture.save(data, "JPEG", quality=82, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


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
