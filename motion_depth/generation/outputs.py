"""What was generated or re-read, as a folder to look at: videos, panels, arrays, point clouds, and run.json.

Axes: t frame, h w pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from motion_depth.clips.batch import pack_targets
from motion_depth.clips.clip import MotionDepthClip
from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.evaluation.scores import KEYS, metrics_of, score_frames, sigma_name
from motion_depth.files.atomic import write_json
from motion_depth.generation.consistency import difference, self_consistency
from motion_depth.generation.exports import write_arrays, write_depth_png, write_ply
from motion_depth.generation.sample import Reading
from motion_depth.pictures.media import write_png, write_video
from motion_depth.pictures.panels import PanelRow, spread_frames, strip, video
from motion_depth.readouts import READOUTS, Readout
from motion_depth.readouts.rows import reading_rows
from motion_depth.readouts.targets import Target, Targets


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


def measure(shown: Shown, baseline_maps: Mapping[str, Tensor]) -> dict:
    """All numbers about a video, for run.json.

    Args:
        baseline_maps: (h, w) each, of the training set's statistics; only looked at with a truth.

    Returns:
        `self_consistency` of the result (see consistency.py); `know_show_gap`: how far the forecast is from it, and
        what share of the video's changes each explains; `readings`: for each one its noise level, self-consistency,
        difference from the result, and with a truth the metrics of tools/evaluate.py, with their baselines. With a
        truth also `true_consistency`: the true video against its true motion and depth, which is as far as one gets.
    """
    readings, result = {}, shown.seen.maps
    for where, reading in shown.readings.items():
        readings[where] = {
            "sigma": reading.sigma,
            "self_consistency": self_consistency(shown.frames, reading.maps),
            "from_result": difference(reading.maps, result),
        }
        if shown.truth is not None:
            readings[where]["metrics"] = _metrics(reading, shown.truth, baseline_maps)
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


def _metrics(reading: Reading, truth: MotionDepthClip, maps: Mapping[str, Tensor]) -> dict[str, float | None]:
    keys = dict.fromkeys(KEYS[:-1], 0)  # the frame's number is filled in by score_frames
    predictions = {name: value[None] for name, value in reading.predictions.items()}
    return metrics_of(score_frames(predictions, Targets.stack([pack_targets(truth)]).to("cpu"), maps, keys))


def _true_consistency(truth: MotionDepthClip) -> dict[str, float | None]:
    targets = truth.targets
    depth, valid = targets["depth"]
    return self_consistency(truth.frames, Targets(targets | {"depth": Target(depth.where(valid, 1.0), valid)}))


def panel_rows(shown: Shown) -> list[PanelRow]:
    """The video, then each quantity: true if known, seen in the video, forecast from its first frame."""
    pictures, readings = {shown.label: shown.frames}, {}
    if shown.truth is not None:
        truth = shown.truth
        if not truth.frames.equal(shown.frames):
            pictures["True video"] = truth.frames
        readings["True"] = truth.targets
    return reading_rows(pictures, readings | {"Seen": shown.seen.maps, "Forecast": shown.forecast.maps})


def write_result(folder: Path, shown: Shown, title: str, fps: float) -> None:
    """video.mp4, panel.mp4, panel.png, and for each quantity <name>.mp4 and <name>.npz."""
    rows = panel_rows(shown)
    write_video(folder / "video.mp4", shown.frames, fps)
    for name, readout in READOUTS.items():
        row = next(row for row in rows if row.label == f"Seen {name}")
        write_video(folder / f"{name}.mp4", video([row], shown.numbers, title), fps)
        write_arrays(folder / f"{name}.npz", readout.arrays(shown.seen.predictions))
    write_video(folder / "panel.mp4", video(rows, shown.numbers, title), fps)
    write_png(folder / "panel.png", strip(rows, spread_frames(len(shown.frames)), shown.numbers, title))


def export(folder: Path, shown: Shown, kinds: Sequence[str], frames: Sequence[int], fov: float | None) -> list[str]:
    """Point clouds ("ply") and depth pictures ("png16") of some frames; returns a line for what needs a word."""
    notes, (depth, there) = [], shown.seen.maps["depth"]
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
            level = sigma_name(round(reading["sigma"], 4))
            lines.append(f"truth   {where}, noise {level}: {'; '.join(map(partial(_score, found), READOUTS.values()))}")
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


def _score(metrics: Mapping[str, float | None], readout: Readout) -> str:
    """The metric that stands for a quantity, and its baseline."""
    label, unit = readout.headline[readout.scored], f" {readout.unit}".rstrip()
    if (value := metrics[readout.scored]) is None:
        return f"{label}: {readout.nothing}"
    baseline = f"{readout.baselines['baseline']} {_number(metrics[f'{readout.scored}_baseline'])}{unit}"
    return f"{label} {value:.3g}{unit} ({baseline})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if value == 0 or abs(value) >= 0.0005 else "under 0.1 %"
