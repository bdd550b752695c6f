"""How well each reading of the motion files explains what the pictures show, on a sample of pixels of one frame.

A motion convention is right if a pixel's colour is found again where its vector leads in an earlier frame. The error
of a convention is the mean over sampled pixels of the colour difference, each at most MAX_DIFFERENCE, so that what was
hidden before, or changed its light, counts once and not by its contrast. It is compared with the error of no motion at
all on the same pixels. The same vectors must lead to the same distance in the earlier depth file.

Axes: B baselines, C candidates, K candidates without an offset, P pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import is_there

OFFSETS = (0, 1, -1)
# In this order, because of a tie the first wins: the documented convention of Replicator.
CANDIDATES = tuple(
    MotionConvention(units, direction, y_axis, offset)
    for offset, units, direction, y_axis in product(
        OFFSETS, ("pixels", "normalized", "ndc"), ("backward", "forward"), ("down", "up")
    )
)
PER_OFFSET = len(CANDIDATES) // len(OFFSETS)

# Frames back. What moves half a pixel a frame hardly shows from one frame to the next, least of all in pictures without
# antialiasing; eight times its vector shows well, and a motion that slow hardly turns within eight frames.
BASELINES = (1, 4, 8)
SEARCHED_PIXELS = 30_000  # per frame, on a grid
SAMPLED_PIXELS = 1000  # per frame, of those that move
NOISE = 1e-4  # in the file's unit: what rests is not always exactly 0 in a renderer; no vector is that short
MOVING = 0.2  # a pixel is worth a look if its vector is longer than this share of the longest ones
MAX_DIFFERENCE = 40.0  # of 255, mean over the colours
MAX_DEPTH_DIFFERENCE = 0.1  # as a share of the distance
OCCLUDED = 0.05  # as a share of the distance: beyond, another surface is found
SAME_SURFACE = 0.02  # as a share of the distance: below, surely the same one

Pixels = tuple[NDArray, NDArray]  # rows and columns (P,)


@dataclass(frozen=True)
class Window:
    """Files around a frame t, keyed by how many frames before t (negative: after t) they lie.

    rgb: (H, W, 3) uint8 of -1, 0 and of those BASELINES that are there, 1 among them. motion: (H, W, 2) floating, as
    on disk, of -1, 0 and 1. depth: (H, W) floating, as on disk, of -1, 0, 1 and of those BASELINES that are there.
    """

    rgb: Mapping[int, NDArray]
    motion: Mapping[int, NDArray]
    depth: Mapping[int, NDArray]


@dataclass(frozen=True)
class Evidence:
    """Errors at one frame; NaN where a file is not there.

    still: (B,) error of no motion. moved: (B, C) error of each of CANDIDATES; beyond one frame back, OFFSETS share
    their numbers. next_still, next_moved: (), (K,) the same against the next frame, for vectors that lead there: read
    as the first K of CANDIDATES, which are those without an offset, and followed the other way. either_way: (2, K)
    errors against the frame before and the next, at moving pixels that are seen in both. depth: (C, 2) by which share
    of itself the distance changes from the frame before: at a pixel, then along the motion.
    """

    still: NDArray
    moved: NDArray
    next_still: float
    next_moved: NDArray
    either_way: NDArray
    depth: NDArray


def weigh(window: Window, rng: np.random.Generator) -> Evidence | None:
    """Evidence of one frame; None if none of its vectors is longer than NOISE."""
    at = _sample_pixels(window.motion, rng)
    if not len(at[0]):
        return None
    here = np.stack([at[1], at[0]]).astype(np.float32)[:, None]  # x and y, (2, 1, P)
    steps = _candidate_steps(window, at)
    now, distance = window.rgb[0][at].astype(np.float32), window.depth[0][at]
    still, moved = np.full(len(BASELINES), np.nan), np.full((len(BASELINES), len(CANDIDATES)), np.nan)
    for b, back in enumerate(BASELINES):
        if back not in window.rgb:
            continue
        unmoved = _colour_error(now, window.rgb[back][at])
        still[b] = unmoved.mean()
        # Further back, the vectors are multiplied: one frame more or less is no longer told apart.
        x, y = back * steps[:, : PER_OFFSET if back > 1 else None] + here
        error = _colour_error(now, _bilinear(window.rgb[back], x, y))
        if back > 1 and back in window.depth:
            error = np.where(depth_error(_nearest(window.depth[back], x, y), distance) > OCCLUDED, unmoved, error)
        moved[b] = np.resize(error.mean(axis=1), len(CANDIDATES))

    # Forward flow, negated, is nearly backward flow, and the other way round; what nobody sees in one of the two
    # neighbours would count more than the difference. So the same vector is followed both ways at the same pixels.
    seen, errors = _moving(steps[:, :PER_OFFSET]), []
    for back in (1, -1):
        x, y = here + back * steps[:, :PER_OFFSET]
        errors.append(_colour_error(now, _bilinear(window.rgb[back], x, y)))
        seen &= depth_error(_nearest(window.depth[back], x, y), distance) < SAME_SURFACE

    # Each candidate is asked about the distances of the pixels that move in its own file.
    x, y = steps + here
    unmoved, along = (depth_error(each, distance) for each in (window.depth[1][at], _nearest(window.depth[1], x, y)))
    changes = np.stack([np.broadcast_to(unmoved, along.shape), along], axis=1)
    return Evidence(
        still,
        moved,
        next_still=float(_colour_error(now, window.rgb[-1][at]).mean()),
        next_moved=errors[1].mean(axis=1),
        either_way=_mean_where(seen, np.stack(errors)),
        depth=_mean_where(_moving(steps)[:, None], changes),
    )


def search_step(motion: NDArray) -> int:
    """Every how many rows and columns of a frame (H, W, ...) are looked at."""
    return max(1, round(math.sqrt(motion.shape[0] * motion.shape[1] / SEARCHED_PIXELS)))


def finite(values: NDArray) -> NDArray:
    return np.where(np.isfinite(values), values, np.float32(0))


def depth_error(found: NDArray, expected: NDArray) -> NDArray:
    """Difference as a share of what is expected, at most MAX_DEPTH_DIFFERENCE; nothing matches nothing only."""
    something, expects = is_there(found), is_there(expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.minimum(np.abs(found - expected) / expected, MAX_DEPTH_DIFFERENCE)
    return np.where(something & expects, error, np.where(something | expects, MAX_DEPTH_DIFFERENCE, 0.0))


def _sample_pixels(motion: Mapping[int, NDArray], rng: np.random.Generator) -> Pixels:
    """Pixels that move, and pixels where the three motion files differ, half and half.

    The first tell the directions and units, the second to which frame a file belongs. How long a vector must be
    follows from the longest ones: their unit is not known.
    """
    step = search_step(motion[0])
    top, left = rng.integers(step, size=2)
    x, y = (np.stack([finite(motion[k][top::step, left::step, axis]) for k in (0, -1, 1)]) for axis in (0, 1))
    lengths = np.maximum(np.abs(x).max(axis=0), np.abs(y).max(axis=0))
    changes = np.maximum(np.ptp(x, axis=0), np.ptp(y, axis=0))
    chosen = [_choose(values.ravel(), SAMPLED_PIXELS // 2, rng) for values in (lengths, changes)]
    rows, columns = np.divmod(np.concatenate(chosen), lengths.shape[1])
    return top + step * rows, left + step * columns


def _choose(values: NDArray, count: int, rng: np.random.Generator) -> NDArray:
    """Up to `count` indices among those whose value is above MOVING of the largest ones (the 98th percentile)."""
    moving = values[values > NOISE]
    if not len(moving):
        return np.empty(0, np.int64)
    large = np.flatnonzero(values > max(NOISE, MOVING * np.quantile(moving, 0.98)))
    return rng.choice(large, count, replace=False) if len(large) > count else large


def _candidate_steps(window: Window, at: Pixels) -> NDArray:
    """Backward flow in pixels (2, C, P), x and y, that each candidate reads at the pixels."""
    height, width = window.rgb[0].shape[:2]
    raw = {offset: finite(window.motion[-offset][at]).T for offset in OFFSETS}  # (2, P)
    scaled = [raw[c.frame_offset] * np.float32(c.scale(height, width))[:, None] for c in CANDIDATES]
    return np.stack(scaled, axis=1)


def _moving(steps: NDArray) -> NDArray:
    """(C, P) bool, of steps (2, C, P)."""
    lengths = np.abs(steps).max(axis=0)
    return lengths > MOVING * lengths.max(axis=1, keepdims=True)


def _mean_where(chosen: NDArray, values: NDArray) -> NDArray:
    """The mean of values (..., P) over the chosen pixels (..., P); 0 where none is."""
    return np.where(chosen, values, 0.0).sum(axis=-1) / np.maximum(chosen.sum(axis=-1), 1)


def _colour_error(now: NDArray, earlier: NDArray) -> NDArray:
    """(..., P, 3) against (..., P, 3): mean absolute difference over the colours, at most MAX_DIFFERENCE; (..., P)."""
    red, green, blue = np.moveaxis(np.abs(now - earlier), -1, 0)  # numpy takes means over short axes slowly
    return np.minimum((red + green + blue) / 3, MAX_DIFFERENCE)


def _into_picture(image: NDArray, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    return np.clip(x, 0, image.shape[1] - 1), np.clip(y, 0, image.shape[0] - 1)


def _nearest(image: NDArray, x: NDArray, y: NDArray) -> NDArray:
    """image (H, W) at points, those outside moved to its border."""
    x, y = _into_picture(image, x, y)
    return image[np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)]


def _bilinear(image: NDArray, x: NDArray, y: NDArray) -> NDArray:
    """image (H, W, 3) at points (...), those outside moved to its border; float32 (..., 3)."""
    x, y = _into_picture(image, x, y)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, image.shape[1] - 1), np.minimum(top + 1, image.shape[0] - 1)
    h, v = (x - left).astype(np.float32)[..., None], (y - top).astype(np.float32)[..., None]
    pixels, width = image.reshape(-1, 3), image.shape[1]

    def row(start: NDArray) -> NDArray:
        first = pixels.take(start * width + left, axis=0).astype(np.float32)
        return first + h * (pixels.take(start * width + right, axis=0) - first)

    above = row(top)
    return above + v * (row(bottom) - above)
