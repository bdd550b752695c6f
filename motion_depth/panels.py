"""Pictures and videos of motion and depth. The only place that turns them into colours.

Axes: t frames, h height, w width. Maps come in as tensors on any device; everything that goes out is numpy uint8 RGB.
    clip -> `truth_and_prediction_rows` or `prediction_rows` -> list of `PanelRow` -> `strip` (picture) or `video`
Truth and prediction share one `Scales`, taken from the truth, and the legends are coloured by the same functions as the
maps. A colour depends on the value and the scale only, never on what else is in the picture. Values beyond the scale
saturate; a pixel without a value is `NO_VALUE` grey, which no value has.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from textwrap import fill

import imageio.v3 as iio
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import flow_to_image

NO_VALUE = (128, 128, 128)
DEPTH_COLOURS = "turbo_r"  # red is near, blue is far
ERROR_COLOURS = "magma"  # black is no error
MOVING_PIXELS = 0.5  # the range of speeds is taken over pixels that move at least this far between two frames
DEPTH_ERROR_PERCENT = 25.0  # end of the scale for depth errors; delta1 counts about these pixels as wrong

# Layout, in pixels of the page.
TILE = 256  # largest side of a map
MARGIN, GAP, LINE, LEGEND, FONT = 14, 6, 24, 104, 15
PAGE, INK, FRAME = (255, 255, 255), (40, 40, 46), (205, 205, 210)


# ---------------------------------------------------------------------------------------------- values to colours


def colour_motion(motion: Tensor, max_speed: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour flow: hue is the direction, white is no motion, full colour is `max_speed` or faster.

    motion: (t, 2, h, w) pixels. valid: (t, h, w) bool; None: every finite vector. Returns (t, h, w, 3). These are
    torchvision's `flow_to_image` colours of the vectors as they are, that is of *backward* flow.
    """
    motion = motion.detach().float().cpu()
    valid = _valid(motion.isfinite().all(dim=1), valid)
    # flow_to_image divides by the longest vector of the call. So every frame gets one that is at least as long as the
    # others: a row of unit vectors below it, which is cut off again. Adding 0 turns -0 into 0: their hues differ.
    flow = motion.masked_fill(~valid[:, None], 0.0) / max_speed + 0.0
    flow = flow / _length(flow)[:, None].clamp(min=1.0) * (1 - 1e-6)
    reference = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, flow.shape[-1])
    colours = [flow_to_image(torch.cat([frame, reference], dim=1))[:, :-1] for frame in flow]
    return _grey_out(torch.stack(colours).movedim(1, -1).numpy(), valid)


def colour_depth(depth: Tensor, near: float, far: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour distances on a logarithmic scale from near (red) to far (blue).

    depth: (t, h, w) metres. valid: (t, h, w) bool; None: every finite positive distance. Returns (t, h, w, 3).
    """
    depth = depth.detach().float().cpu()
    valid = _valid(depth.isfinite() & (depth > 0), valid)
    share = torch.log(depth.masked_fill(~valid, near) / near) / math.log(far / near)
    return _grey_out(_lookup(share, DEPTH_COLOURS), valid)


def colour_error(error: Tensor, max_error: float, valid: Tensor | None = None) -> np.ndarray:
    """Colour errors from 0 (black) to max_error (pale yellow). error: (t, h, w), >= 0. Returns (t, h, w, 3)."""
    error = error.detach().float().cpu()
    valid = _valid(error.isfinite(), valid)
    return _grey_out(_lookup(error.masked_fill(~valid, 0.0) / max_error, ERROR_COLOURS), valid)


def _length(motion: Tensor) -> Tensor:
    """(t, 2, h, w) -> (t, h, w); several times faster than `norm` over the second axis."""
    return torch.hypot(*motion.unbind(dim=1))


def _valid(has_value: Tensor, valid: Tensor | None) -> Tensor:
    return has_value if valid is None else has_value & valid.cpu()


def _lookup(share: Tensor, colours: str) -> np.ndarray:
    """Colour of each share (...) of the scale, clamped to 0 .. 1; (..., 3)."""
    table = matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3]
    return table[(share.clamp(0, 1) * 255).round().to(torch.uint8).numpy()]


def _grey_out(colours: np.ndarray, valid: Tensor) -> np.ndarray:
    return np.where(valid.numpy()[..., None], colours, np.uint8(NO_VALUE))


# ---------------------------------------------------------------------------------------------- scales


@dataclass(frozen=True)
class MotionScale:
    """max_speed: pixels between two sampled frames, full colour."""

    max_speed: float


@dataclass(frozen=True)
class DepthScale:
    """near, far: metres, the ends of the logarithmic scale."""

    near: float
    far: float


@dataclass(frozen=True)
class ErrorScale:
    """max_error: the end of the scale, in `unit`."""

    max_error: float
    unit: str


@dataclass(frozen=True)
class Maps:
    """What is known or predicted about a clip.

    motion: (t, 2, h, w) backward flow in pixels. depth: (t, h, w) metres. motion_valid, depth_valid: (t, h, w) bool;
    None: wherever there is a finite (positive) value. Frame 0 has no motion, whatever stands there.
    """

    motion: Tensor
    depth: Tensor
    motion_valid: Tensor | None = None
    depth_valid: Tensor | None = None

    def has_motion(self) -> Tensor:
        """(t, h, w) bool, on the CPU."""
        valid = _valid(self.motion.detach().isfinite().all(dim=1).cpu(), self.motion_valid)
        valid[0] = False
        return valid

    def has_depth(self) -> Tensor:
        """(t, h, w) bool, on the CPU."""
        depth = self.depth.detach().cpu()
        return _valid(depth.isfinite() & (depth > 0), self.depth_valid)


@dataclass(frozen=True)
class Scales:
    """The scales under which truth and prediction are shown alike."""

    motion: MotionScale
    depth: DepthScale

    @classmethod
    def of(cls, maps: Maps) -> "Scales":
        """The scales that suit these maps; `maps` is the truth wherever there is one."""
        near, far = depth_range(maps.depth, maps.has_depth())
        return cls(MotionScale(motion_range(maps.motion, maps.has_motion())), DepthScale(near, far))


def motion_range(motion: Tensor, valid: Tensor) -> float:
    """99th percentile of the speeds of moving pixels, rounded up to two digits; at least 1 pixel.

    motion: (t, 2, h, w) pixels. valid: (t, h, w) bool.
    """
    speed = _length(motion.detach().float().cpu()).numpy()[valid.cpu().numpy()]
    moving = speed[speed > MOVING_PIXELS]
    return max(1.0, _two_digits(float(np.percentile(moving, 99)), math.ceil)) if moving.size else 1.0


def depth_range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """1st and 99th percentile of the distances, rounded outward to two digits; (1, 10) if there is no valid pixel.

    depth, valid: (t, h, w), metres and bool. Never empty: far is at least 1.2 times near.
    """
    distances = depth.detach().float().cpu().numpy()[valid.cpu().numpy()]
    if not distances.size:
        return 1.0, 10.0
    near, far = (float(distance) for distance in np.percentile(distances, (1, 99)))
    middle = math.sqrt(near * far)
    spread = max(far / middle, math.sqrt(1.2))
    return _two_digits(middle / spread, math.floor), _two_digits(middle * spread, math.ceil)


def _two_digits(value: float, rounding) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    # What is a two-digit number already, but for the last bits of a float32, stays as it is.
    digits = round(value / step) if math.isclose(value / step, round(value / step), rel_tol=1e-6) else value / step
    return float(f"{rounding(digits) * step:.2g}")


# ---------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class PanelRow:
    """One quantity over time: a row of `strip`, a tile of `video`.

    label: its name. frames: (t, h, w, 3) uint8. scale: what its colours mean, for the legend; None for a plain picture.
    line: the line of `video` in which it stands, 0 on top.
    """

    label: str
    frames: np.ndarray
    scale: MotionScale | DepthScale | ErrorScale | None = None
    line: int = 0


def prediction_rows(frames: Tensor, prediction: Maps, scales: Scales | None = None) -> list[PanelRow]:
    """Video, predicted motion, predicted depth, for want of a truth under the prediction's own scales.

    frames: (t, h, w, 3) uint8.
    """
    scales = scales or Scales.of(prediction)
    return [
        PanelRow("Video", frames.cpu().numpy()),
        _motion_row("Predicted motion", prediction, scales),
        _depth_row("Predicted depth", prediction, scales),
    ]


def truth_and_prediction_rows(frames: Tensor, truth: Maps, prediction: Maps) -> list[PanelRow]:
    """Video, then motion and depth as true, predicted, error; the truth's scales serve the prediction too.

    frames: (t, h, w, 3) uint8. The motion error is the length of the difference in pixels; its scale ends where the
    motion's does, so that a prediction of no motion shows an error as bright as the motion is fast. The depth error is
    |predicted - true| / true in percent. Errors are shown where the truth is valid and the prediction finite: a
    prediction's own mask hides none.
    """
    scales = Scales.of(truth)
    motion_error = _length(prediction.motion.detach().float().cpu() - truth.motion.float().cpu())
    true_depth, has_depth = truth.depth.float().cpu(), truth.has_depth()
    depth_error = 100 * (prediction.depth.detach().float().cpu() - true_depth).abs() / true_depth.where(has_depth, 1.0)
    pixels, percent = ErrorScale(scales.motion.max_speed, "px"), ErrorScale(DEPTH_ERROR_PERCENT, "%")
    return [
        PanelRow("Video", frames.cpu().numpy()),
        _motion_row("True motion", truth, scales),
        _motion_row("Predicted motion", prediction, scales),
        PanelRow("Motion error", colour_error(motion_error, pixels.max_error, truth.has_motion()), pixels),
        _depth_row("True depth", truth, scales, line=1),
        _depth_row("Predicted depth", prediction, scales, line=1),
        PanelRow("Depth error", colour_error(depth_error, percent.max_error, has_depth), percent, line=1),
    ]


def _motion_row(label: str, maps: Maps, scales: Scales) -> PanelRow:
    return PanelRow(label, colour_motion(maps.motion, scales.motion.max_speed, maps.has_motion()), scales.motion)


def _depth_row(label: str, maps: Maps, scales: Scales, line: int = 0) -> PanelRow:
    colours = colour_depth(maps.depth, scales.depth.near, scales.depth.far, maps.has_depth())
    return PanelRow(label, colours, scales.depth, line)


# ---------------------------------------------------------------------------------------------- layout


def spread_frames(total: int, count: int = 5) -> list[int]:
    """`count` frame indices, or all if there are fewer, evenly from the first of `total` to the last."""
    return sorted({round(index) for index in np.linspace(0, total - 1, count)})


def strip(
    rows: Sequence[PanelRow],
    frame_indices: Sequence[int],
    frame_numbers: Sequence[int] | None = None,
    title: str = "",
) -> np.ndarray:
    """A labelled grid: one line per row, one column per chosen frame, legends on the right. Returns (H, W, 3).

    frame_indices: into the rows' frames. frame_numbers: what the columns are called, for *all* frames of the rows (a
    clip's `frame_ids`); default: their indices. Neighbouring rows of equal scale share one legend.
    """
    total, tile = _common_size(rows)
    numbers = range(total) if frame_numbers is None else [int(number) for number in frame_numbers]
    wrong = [index for index in frame_indices if not 0 <= index < total]
    if wrong or not frame_indices or len(numbers) != total:
        raise ValueError(f"found frames {list(frame_indices)} and {len(numbers)} numbers for rows of {total} frames")
    labels = [fill(row.label, 12) for row in rows]
    left = MARGIN + math.ceil(max(_text_width(label) for label in labels)) + 2 * GAP
    top = MARGIN + (LINE if title else 0) + LINE
    columns = [left + number * (tile[1] + GAP) for number in range(len(frame_indices))]
    lines = [top + number * (tile[0] + GAP) for number in range(len(rows))]
    legend = columns[-1] + tile[1] + 2 * GAP
    has_legend = any(row.scale for row in rows)
    page = _page((lines[-1] + tile[0], (legend + LEGEND if has_legend else columns[-1] + tile[1])), title, has_legend)
    for x, index in zip(columns, frame_indices, strict=True):
        _text(page, (x + tile[1] // 2, top - GAP), f"frame {numbers[index]}", "ms")
        for y, row in zip(lines, rows, strict=True):
            _paste(page, row, index, (x, y), tile)
    for y, label in zip(lines, labels, strict=True):
        _text(page, (MARGIN, y + tile[0] // 2), label, "lm")
    for scale, group in groupby(zip(lines, rows, strict=True), key=lambda item: item[1].scale):
        first, *_, last = (y for y, _ in [*group] * 2)
        _draw_legend(page, scale, (legend, first), last + tile[0] - first)
    return np.array(page)


def video(rows: Sequence[PanelRow], frame_numbers: Sequence[int] | None = None, title: str = "") -> np.ndarray:
    """All rows side by side at every frame, labelled, with legends. Returns (t, H, W, 3).

    Plain pictures stand on the left, as high as all lines together; the rows with a scale stand beside them, each in
    its `line`, followed by the legends of that line.
    """
    total, tile = _common_size(rows)
    numbers = range(total) if frame_numbers is None else [int(number) for number in frame_numbers]
    if len(numbers) != total:
        raise ValueError(f"found {len(numbers)} frame numbers for rows of {total} frames")
    maps = sorted((row for row in rows if row.scale), key=lambda row: row.line)
    lines = [list(group) for _, group in groupby(maps, key=lambda row: row.line)]
    high = max(1, len(lines)) * (tile[0] + LINE) - LINE
    picture = high, round(tile[1] * high / tile[0])
    places, x = [], MARGIN
    for row in rows:
        if not row.scale:
            places.append((row, (x, MARGIN + 2 * LINE), picture))
            x += picture[1] + GAP
    legends, right = [], x - GAP
    for number, line in enumerate(lines):
        y = MARGIN + 2 * LINE + number * (tile[0] + LINE)
        places += [(row, (x + column * (tile[1] + GAP), y), tile) for column, row in enumerate(line)]
        first = x + len(line) * (tile[1] + GAP) + GAP
        scales = list(dict.fromkeys(row.scale for row in line))
        legends += [(scale, (first + column * LEGEND, y)) for column, scale in enumerate(scales)]
        right = max(right, first + len(scales) * LEGEND)
    blank = _page((MARGIN + 2 * LINE + high, right), title, bool(maps))
    for row, (x, y), size in places:
        _text(blank, (x + size[1] // 2, y - GAP), row.label, "ms")
    for scale, corner in legends:
        _draw_legend(blank, scale, corner, tile[0])
    return np.stack([_video_frame(blank, places, index, numbers[index]) for index in range(total)])


def _video_frame(blank: Image.Image, places: list, index: int, number: int) -> np.ndarray:
    page = blank.copy()
    for row, corner, size in places:
        _paste(page, row, index, corner, size)
    _text(page, (page.width - MARGIN, MARGIN), f"frame {number}", "ra")
    return np.array(page)


def _common_size(rows: Sequence[PanelRow]) -> tuple[int, tuple[int, int]]:
    """The rows' number of frames, and the (height, width) of a tile: the frames' times or by a whole number."""
    shapes = {row.frames.shape for row in rows}
    if len(shapes) != 1 or any(row.frames.dtype != np.uint8 for row in rows):
        found = ", ".join(f"{row.label}: {row.frames.dtype} {row.frames.shape}" for row in rows)
        raise ValueError(f"found rows of {found or 'nothing'}; expected uint8 frames (t, h, w, 3) of one size")
    total, height, width, _ = shapes.pop()
    longest = max(height, width)
    if longest <= TILE:
        return total, (height * (TILE // longest), width * (TILE // longest))
    part = math.ceil(longest / TILE)
    return total, (max(1, height // part), max(1, width // part))


def _page(end: tuple[int, int], title: str, has_maps: bool) -> Image.Image:
    """An empty page whose contents end at (bottom, right) `end`, with the title and what grey means."""
    bottom, right = end
    page = Image.new("RGB", (right + MARGIN, bottom + (LINE + GAP if has_maps else 0) + MARGIN), PAGE)
    shortened = title
    while shortened and _text_width(shortened) > right - MARGIN - LEGEND:
        shortened = shortened[:-2] + "…"
    _text(page, (MARGIN, MARGIN), shortened, "la")
    if has_maps:
        y = page.height - MARGIN
        ImageDraw.Draw(page).rectangle((MARGIN, y - FONT, MARGIN + FONT, y), fill=NO_VALUE)
        _text(page, (MARGIN + FONT + GAP, y - FONT // 2), "no value", "lm")
    return page


def _paste(page: Image.Image, row: PanelRow, index: int, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Draw a row's frame with a hairline around it. Maps are never smoothed: that would invent values at edges."""
    (x, y), (height, width) = corner, size
    how = Image.Resampling.NEAREST if row.scale else Image.Resampling.LANCZOS
    page.paste(Image.fromarray(row.frames[index]).resize((width, height), how), corner)
    ImageDraw.Draw(page).rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)


# ---------------------------------------------------------------------------------------------- legends and text


def _draw_legend(page: Image.Image, scale, corner: tuple[int, int], height: int) -> None:
    """The colours of a scale, centred in LEGEND x height below and to the right of the corner (x, y)."""
    if isinstance(scale, MotionScale):
        _draw_wheel(page, scale, corner, height)
    elif scale is not None:
        _draw_bar(page, scale, corner, height)


def _draw_wheel(page: Image.Image, scale: MotionScale, corner: tuple[int, int], height: int) -> None:
    """Where a surface moves to (not where it came from, which is what backward flow says) and what colour that has."""
    size = max(16, min(LEGEND - 16, height - 3 * LINE))
    x, y = corner[0] + (LEGEND - size) // 2, corner[1] + (height - size) // 2
    fine = 4 * size  # drawn larger and scaled down: a smooth rim
    axis = (torch.arange(fine) + 0.5) / fine * 2 - 1
    travel = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    wheel = Image.fromarray(colour_motion(-travel[None] * scale.max_speed, scale.max_speed)[0])
    disc = Image.fromarray((travel.norm(dim=0) <= 1).numpy())
    page.paste(wheel.resize((size, size), Image.Resampling.BOX), (x, y), disc.convert("L").resize((size, size)))
    _text(page, (corner[0] + LEGEND // 2, y - GAP), "moves to", "ms")
    _text(page, (corner[0] + LEGEND // 2, y + size + GAP), f"≥ {scale.max_speed:g} px", "ma")


def _draw_bar(page: Image.Image, scale: DepthScale | ErrorScale, corner: tuple[int, int], height: int) -> None:
    length = max(16, min(height - 2 * FONT, 2 * TILE))
    x, y = corner[0] + GAP, corner[1] + (height - length) // 2
    share = torch.linspace(1, 0, length)[None, :, None].expand(1, length, FONT)
    if isinstance(scale, DepthScale):
        bar = colour_depth(scale.near * (scale.far / scale.near) ** share, scale.near, scale.far)
        middle = f"{math.sqrt(scale.near * scale.far):.2g} m"
        labels = f"≥ {scale.far:g} m", middle, f"≤ {scale.near:g} m"
    else:
        bar = colour_error(share * scale.max_error, scale.max_error)
        labels = f"≥ {scale.max_error:g} {scale.unit}", f"{scale.max_error / 2:.3g} {scale.unit}", f"0 {scale.unit}"
    page.paste(Image.fromarray(bar[0]), (x, y))
    ImageDraw.Draw(page).rectangle((x - 1, y - 1, x + FONT, y + length), outline=FRAME)
    for label, place in zip(labels, (y, y + length // 2, y + length), strict=True):
        _text(page, (x + FONT + GAP, place), label, "lm")


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own copy of DejaVu Sans: the same on every machine, and it knows ≥ and σ."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), FONT)


def _text_width(text: str) -> float:
    return max(_font().getlength(line) for line in text.splitlines() or [""])


def _text(page: Image.Image, place: tuple[int, int], text: str, anchor: str) -> None:
    ImageDraw.Draw(page).text(place, text, INK, _font(), anchor)


# ---------------------------------------------------------------------------------------------- files


def write_video(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Write an .mp4 (h264, yuv420p) that browsers play; there is no file before it is complete.

    frames: (t, h, w, 3) uint8. Odd heights and widths, which yuv420p does not have, get their last line twice.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"{path}: found {frames.dtype} {frames.shape}, expected uint8 frames (t, h, w, 3)")
    if not fps > 0:
        raise ValueError(f"{path}: found {fps} frames per second, expected more than 0")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # Players take untagged video of some sizes for BT.709 and of others for BT.601: say which, or colours shift.
    tag = "scale=out_color_matrix=bt709,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    output = ["-crf", "16", "-vf", tag, "-movflags", "+faststart"]
    options = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 1, "quality": None}
    with _complete_file(Path(path)) as file:
        iio.imwrite(file, frames, plugin="FFMPEG", fps=fps, output_params=output, **options)


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, (t, h, w, 3) uint8. Raises ValueError if the file is none, or is cut off."""
    try:
        frames, header = iio.imread(path, plugin="FFMPEG"), iio.immeta(path, plugin="FFMPEG")
    except (OSError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]  # ffmpeg's; all before is its banner
        raise ValueError(f"{path}: found no readable video, expected a file such as an .mp4 ({reason})") from error
    # ffmpeg decodes what is there of half a file. A tenth of a second is rounding, or sound that ends a little later.
    seconds, announced = len(frames) / header["fps"], header["duration"]
    if announced - seconds > 0.1 + 1 / header["fps"]:
        raise ValueError(f"{path}: found {seconds:.2f} s of pictures, expected {announced:.2f} s: the file is cut off")
    return frames


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture (h, w, 3) uint8; there is no file before it is complete."""
    with _complete_file(Path(path)) as file:
        Image.fromarray(picture).save(file, format="PNG")


@contextmanager
def _complete_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, renamed to `path` if all went well and removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
