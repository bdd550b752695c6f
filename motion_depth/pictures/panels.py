"""Panels: a video and maps of it beside each other, labelled, with legends.

Axes: t frames, h height, w width.
    clip -> `readouts.rows` -> list of `PanelRow` -> `strip` (picture) or `video`
A legend is coloured by the very function that colours the maps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from motion_depth.pictures.colours import NO_VALUE, Bar, Scale, Wheel

# Layout, in pixels of the page.
TILE = 256  # largest side of a map
MARGIN, GAP, LINE, LEGEND, FONT = 14, 6, 24, 104, 15
PAGE, INK, FRAME = (255, 255, 255), (40, 40, 46), (205, 205, 210)


# ---------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class PanelRow:
    """One quantity over time: a row of `strip`, a tile of `video`.

    label: its name. frames: (t, h, w, 3) uint8. scale: what its colours mean, for the legend; None for a plain picture.
    line: the line of `video` in which it stands, 0 on top.
    """

    label: str
    frames: np.ndarray
    scale: Scale | None = None
    line: int = 0


# ---------------------------------------------------------------------------------------------- layout


def spread_frames(total: int, count: int = 5) -> list[int]:
    """`count` frame indices, or all if there are fewer, evenly from the first of `total` to the last."""
    return sorted({round(index) for index in np.linspace(0, total - 1, count)})


def strip(
    rows: Sequence[PanelRow],
    frame_indices: Sequence[int],
    frame_numbers: Sequence[int] | None = None,
    title: str = "",
    largest: int = TILE,
) -> np.ndarray:
    """A labelled grid: one line per row, one column per chosen frame, legends on the right. Returns (H, W, 3).

    frame_indices: into the rows' frames. frame_numbers: what the columns are called, for *all* frames of the rows (a
    clip's `frame_ids`); default: their indices. largest: side of a picture, in pixels of the page. Neighbouring rows of
    equal scale share one legend.
    """
    total, tile = _common_size(rows, largest)
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


def _common_size(rows: Sequence[PanelRow], largest: int = TILE) -> tuple[int, tuple[int, int]]:
    """The rows' number of frames, and the (height, width) of a tile: the frames' times or by a whole number."""
    shapes = {row.frames.shape for row in rows}
    if len(shapes) != 1 or any(row.frames.dtype != np.uint8 for row in rows):
        found = ", ".join(f"{row.label}: {row.frames.dtype} {row.frames.shape}" for row in rows)
        raise ValueError(f"found rows of {found or 'nothing'}; expected uint8 frames (t, h, w, 3) of one size")
    total, height, width, _ = shapes.pop()
    longest = max(height, width)
    if longest <= largest:
        return total, (height * (largest // longest), width * (largest // longest))
    part = math.ceil(longest / largest)
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


def _draw_legend(page: Image.Image, scale: Scale | None, corner: tuple[int, int], height: int) -> None:
    """The colours of a scale, centred in LEGEND x height below and to the right of the corner (x, y)."""
    legend = scale and scale.legend()
    if isinstance(legend, Wheel):
        _draw_wheel(page, legend, corner, height)
    elif legend is not None:
        _draw_bar(page, legend, corner, height)


def _draw_wheel(page: Image.Image, legend: Wheel, corner: tuple[int, int], height: int) -> None:
    size = max(16, min(LEGEND - 16, height - 3 * LINE))
    x, y = corner[0] + (LEGEND - size) // 2, corner[1] + (height - size) // 2
    fine = 4 * size  # drawn larger and scaled down: a smooth rim
    axis = (torch.arange(fine) + 0.5) / fine * 2 - 1
    place = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    wheel = Image.fromarray(legend.colour(place[None])[0])
    disc = Image.fromarray((place.norm(dim=0) <= 1).numpy())
    page.paste(wheel.resize((size, size), Image.Resampling.BOX), (x, y), disc.convert("L").resize((size, size)))
    _text(page, (corner[0] + LEGEND // 2, y - GAP), legend.above, "ms")
    _text(page, (corner[0] + LEGEND // 2, y + size + GAP), legend.below, "ma")


def _draw_bar(page: Image.Image, legend: Bar, corner: tuple[int, int], height: int) -> None:
    length = max(16, min(height - 2 * FONT, 2 * TILE))
    x, y = corner[0] + GAP, corner[1] + (height - length) // 2
    share = torch.linspace(1, 0, length)[None, :, None].expand(1, length, FONT)
    page.paste(Image.fromarray(legend.colour(share)[0]), (x, y))
    ImageDraw.Draw(page).rectangle((x - 1, y - 1, x + FONT, y + length), outline=FRAME)
    for label, place in zip(legend.labels, (y, y + length // 2, y + length), strict=True):
        _text(page, (x + FONT + GAP, place), label, "lm")


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own copy of DejaVu Sans: the same on every machine, and it knows ≥ and σ."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), FONT)


def _text_width(text: str) -> float:
    return max(_font().getlength(line) for line in text.splitlines() or [""])


def _text(page: Image.Image, place: tuple[int, int], text: str, anchor: str) -> None:
    ImageDraw.Draw(page).text(place, text, INK, _font(), anchor)
