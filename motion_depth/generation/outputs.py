"""What was generated or re-read, as a folder to look at: videos, panels, arrays, point clouds, and run.json.

Axes: t frame, h w pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from motion_depth.clips.batch import pack_targets, stack_targets
from motion_depth.clips.clip import MotionDepthClip
from motion_depth.evaluation.scores import KEYS, metrics_of, score_frames, sigma_name
from motion_depth.files.atomic import write_json
from motion_depth.generation.consistency import MOVING_PIXELS, difference, self_consistency
from motion_depth.generation.exports import write_depth, write_depth_png, write_motion, write_ply
from motion_depth.generation.sample import Reading
from motion_depth.pictures.colours import Maps
from motion_depth.pictures.media import write_png, write_video
from motion_depth.pictures.panels import PanelRow, reading_rows, spread_frames, strip, video


@dataclass(frozen=True)
class Shown:
    """A video and what the model says about it.

    Attributes:
        label: what the video is called in a panel.
        frames: (t, h, w, 3) uint8.
        numbers: what the frames are called in pictures: the numbers of the files where there are files.
        readings: where it was read -> the reading, from the noisiest on; the first is the forecast.
        result: key of the reading that is saved and shown as what the video shows.
        truth: the scene's clip, if it is known.
    """

    label: str
    frames: Tensor
    numbers: Sequence[int]
    readings: dict[str, Reading]
    result: str
    truth: MotionDepthClip | None = None

    @property
    def seen(self) -> Reading:
        return self.readings[self.result]

    @property
    def forecast(self) -> Reading:
        return next(iter(self.readings.values()))


def measure(shown: Shown, mean_depth: Tensor) -> dict:
    """All numbers about a video, for run.json.

    Args:
        mean_depth: (h, w) of the training set, for the baseline; only looked at with a truth.

    Returns:
        `self_consistency` of the result (see consistency.py); `know_show_gap`: how far the forecast is from it, and
        what share of the video's changes each explains; `readings`: for each one its noise level, self-consistency,
        difference from the result, and with a truth the metrics of tools/evaluate.py, with their baselines. With a
        truth also `true_consistency`: the true video against its true motion and depth, which is as far as one gets.
    """
    readings = {}
    for where, reading in shown.readings.items():
        found = {
            "sigma": reading.sigma,
            "self_consistency": self_consistency(shown.frames, reading.motion, reading.depth, reading.there),
            "from_result": difference(reading.motion, reading.depth, shown.seen.motion, shown.seen.depth),
        }
        if shown.truth is not None:
            found["metrics"] = _metrics(reading, shown.truth, mean_depth)
        readings[where] = found
    seen, forecast = readings[shown.result], next(iter(readings.values()))
    limit = {} if shown.truth is None else {"true_consistency": _true_consistency(shown.truth)}
    return {
        "result": shown.result,
        "self_consistency": seen["self_consistency"],
        **limit,
        "know_show_gap": {
            **forecast["from_result"],
            "forecast_explained": forecast["self_consistency"]["explained"],
            "seen_explained": seen["self_consistency"]["explained"],
        },
        "readings": readings,
    }


def _metrics(reading: Reading, truth: MotionDepthClip, mean_depth: Tensor) -> dict[str, float | None]:
    keys = dict.fromkeys(KEYS[:-1], 0)  # the frame's number is filled in by score_frames
    return metrics_of(
        score_frames(reading.predictions, stack_targets([pack_targets(truth)]).to("cpu"), mean_depth, keys)
    )


def _true_consistency(truth: MotionDepthClip) -> dict[str, float | None]:
    depth = truth.depth.where(truth.depth_valid, 1.0)
    return self_consistency(truth.frames, truth.motion, depth, truth.depth_valid)


def panel_rows(shown: Shown) -> list[PanelRow]:
    """The video, then motion and depth: true if known, seen in the video, forecast from its first frame."""
    pictures, readings = {shown.label: shown.frames}, {}
    if shown.truth is not None:
        truth = shown.truth
        if not truth.frames.equal(shown.frames):
            pictures["True video"] = truth.frames
        readings["True"] = Maps(truth.motion, truth.depth, truth.motion_valid, truth.depth_valid)
    for name, reading in (("Seen", shown.seen), ("Forecast", shown.forecast)):
        readings[name] = Maps(reading.motion, reading.depth, None, reading.there)
    return reading_rows(pictures, readings)


def write_result(folder: Path, shown: Shown, title: str, fps: float) -> None:
    """video.mp4, motion.mp4, depth.mp4, panel.mp4, panel.png, motion.npz, depth.npz."""
    rows = panel_rows(shown)
    write_video(folder / "video.mp4", shown.frames, fps)
    for kind in ("motion", "depth"):
        row = next(row for row in rows if row.label == f"Seen {kind}")
        write_video(folder / f"{kind}.mp4", video([row], shown.numbers, title), fps)
    write_video(folder / "panel.mp4", video(rows, shown.numbers, title), fps)
    write_png(folder / "panel.png", strip(rows, spread_frames(len(shown.frames)), shown.numbers, title))
    write_motion(folder / "motion.npz", shown.seen.motion)
    write_depth(folder / "depth.npz", shown.seen.depth, shown.seen.there)


def export(folder: Path, shown: Shown, kinds: Sequence[str], frames: Sequence[int], fov: float | None) -> list[str]:
    """Point clouds ("ply") and depth pictures ("png16") of some frames; returns a line for what needs a word."""
    notes, seen = [], shown.seen
    depth, there = seen.depth, seen.there
    for frame in frames:
        if "ply" in kinds:
            write_ply(folder / "ply" / f"{frame:04d}.ply", shown.frames[frame], depth[frame], there[frame], fov)
        if "png16" in kinds:
            path = folder / "depth_millimetres" / f"{frame:04d}.png"
            if too_far := write_depth_png(path, depth[frame], there[frame]):
                notes.append(f"{path}: {too_far} pixels are farther than 65.535 m, which is what they say now")
    return notes


def write_run(folder: Path, record: dict) -> None:
    """run.json, the last file of a folder: where it is, everything else is."""
    write_json(folder / "run.json", record)


def summary(measured: dict) -> str:
    """What to print about a video: four lines, and more with a truth."""
    own, gap = measured["self_consistency"], measured["know_show_gap"]
    lines = [
        "motion  nothing changes from frame to frame"
        if own["explained"] is None
        else f"motion  explains {_percent(own['explained'])} of what changes from frame to frame",
        f"        {_moving(own)}",
        f"depth   {_percent(own['depth_steady'])} of the points keep it within 5 % along the motion (mean change "
        f"{_percent(own['depth_change'])}, at the same pixel {_percent(own['depth_change_still'])})",
        f"forecast from the first frame: motion {_number(gap['motion_px'])} px and depth {_percent(gap['depth_rel'])} "
        f"from what the video shows; it explains {_percent(gap['forecast_explained'])}",
    ]
    if true := measured.get("true_consistency"):
        lines += [
            f"truth   the true motion explains {_percent(true['explained'])} of what changes in the true video; "
            f"{_percent(true['depth_steady'])} of the points keep their distance",
            f"        {_moving(true)}",
        ]
    for where, reading in measured["readings"].items():
        if found := reading.get("metrics"):
            depth = _beside(found, "abs_rel", "mean depth", "") or ": nothing has a depth"
            moving = _beside(found, "moving_epe", "no motion", " px") or ": nothing moves"
            level = sigma_name(round(reading["sigma"], 4))
            lines.append(f"truth   {where}, noise {level}: AbsRel{depth}; moving EPE{moving}")
    return "\n".join(lines)


def _moving(found: dict) -> str:
    """A sentence about the pixels that move."""
    if not found["moving_share"]:
        return f"no pixel moves by more than {MOVING_PIXELS:g} px from a frame to the next"
    share = _percent(found["moving_share"])
    if found["moving_explained"] is None:
        return f"{share} of the pixels move, but no colour changes there"
    return (
        f"{share} of the pixels move; there {_percent(found['moving_explained'])} is explained: colours differ by "
        f"{_number(found['moving_warp_error'])} of 255 along the motion, by {_number(found['moving_still_error'])} "
        "at the same pixel"
    )


def _beside(found: dict, name: str, baseline: str, unit: str) -> str | None:
    """A metric and its baseline, None where there is no pixel to measure."""
    if found[name] is None:
        return None
    return f" {found[name]:.3g}{unit} ({baseline} {_number(found[f'{name}_baseline'])}{unit})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if value == 0 or abs(value) >= 0.0005 else "under 0.1 %"
