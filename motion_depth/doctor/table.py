"""The numbers that each frame gives, whatever the motion convention, taken on a grid of its pixels.

A scene's table has a row per frame and these columns, NaN where a file was not readable. Shares are of all pixels.

brightest, darkest    of the picture's colours, 0 to 255
picture_changed       share of pixels that differ from the frame before; picture_same: 1 if none does at all
motion                mean length of the vectors, in the file's unit; 0 if none is longer than NOISE
moving_UNIT           share of pixels that move if the file is in that unit (pixels, normalized, ndc)
left_out_UNIT         share of pixels whose motion takes no part then: of nothing, while the camera is not known to rest
motion_bad            vectors that are not finite
motion_same           1 if no vector differs from the frame before, and not all are 0
valid, infinite, not_a_number, zero, negative, too_far, too_near    shares of distances; the last two as `is_there` says
nearest, median, farthest    of the distances that are valid, metres
at_farthest           share at exactly the farthest distance, if it lies far behind all others; else 0
depth_changed         share of pixels whose distance differs from the frame before; depth_same: 1 if none does at all
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motion_depth.data.convention import MOVING_PIXELS, camera_rests
from motion_depth.data.motion import MotionConvention, Units
from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH, is_there
from motion_depth.doctor.photometry import NOISE, finite

UNITS = get_args(Units)
NOTHING = ("infinite", "not_a_number", "zero", "negative", "too_far", "too_near")
COLUMNS = (
    *("brightest", "darkest", "picture_changed", "picture_same", "motion", "motion_bad", "motion_same"),
    *(f"{name}_{units}" for name in ("moving", "left_out") for units in UNITS),
    *("valid", *NOTHING, "nearest", "median", "farthest", "at_farthest", "depth_changed", "depth_same"),
)
GRID_PIXELS = 10_000  # of a frame
CHANGED_LEVELS = 8  # a pixel of a picture has changed if one of its colours has by more than this
CHANGED_DEPTH = 0.01  # as a share of the distance
# A far value that stands for nothing: many pixels hold exactly the largest distance, far behind all others.
MIN_CONSTANT_SHARE, MIN_CONSTANT_STEP = 0.002, 1.5
# Speeds are counted in bins of equal ratio, eight to the factor two; the first one holds what hardly moves.
SPEED_EDGES = np.concatenate([[0.0], 2.0 ** np.arange(-12, 16.1, 1 / 8)])
SPEEDS = np.sqrt(SPEED_EDGES[:-1] * SPEED_EDGES[1:])  # the middles of the bins

GridIndex = tuple[slice, slice]


def make_table(frames: tuple[int, ...], rows: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, index=list(frames), columns=list(COLUMNS), dtype=float)


def grid(number: int, height: int, width: int) -> GridIndex:
    """The index that takes every n-th row and column out of an array (H, W, ...), others in each frame."""
    step = max(1, round((height * width / GRID_PIXELS) ** 0.5))
    return slice(number % step, None, step), slice(number // step % step, None, step)


def picture_row(rgb: NDArray, before: NDArray | None, at: GridIndex) -> dict[str, float]:
    """Of a picture (H, W, 3) uint8 and the one before."""
    pixels = rgb[at]
    row = {"brightest": float(pixels.max()), "darkest": float(pixels.min())}
    if before is not None:
        difference = np.maximum(pixels, before[at]) - np.minimum(pixels, before[at])
        red, green, blue = np.moveaxis(difference > CHANGED_LEVELS, -1, 0)
        row["picture_changed"] = _share(red | green | blue)
        row["picture_same"] = float(not difference.any() and np.array_equal(rgb, before))
    return row


def motion_row(motion: NDArray, before: NDArray | None, at: GridIndex, speeds: NDArray) -> dict[str, float]:
    """Of a motion file (H, W, 2) as on disk and the one before; the grid's vectors are counted in `speeds`."""
    height, width = motion.shape[:2]
    # Looking at the whole file is several times faster than at two of its four channels.
    whole = motion if motion.base is None else motion.base
    with np.errstate(over="ignore", invalid="ignore"):
        bad = 0 if np.isfinite(whole.sum()) else np.count_nonzero(~np.isfinite(motion).all(axis=-1))
    x, y = np.ascontiguousarray(np.moveaxis(motion[at], -1, 0), np.float32)
    if bad:
        x, y = finite(x), finite(y)
    with np.errstate(over="ignore"):
        pixels, sizes = np.sqrt(x * x + y * y), np.sqrt(np.square(x * width) + np.square(y * height))
    for kind, lengths in enumerate((pixels, sizes)):
        speeds[kind] += np.histogram(np.minimum(lengths, SPEED_EDGES[-1]), SPEED_EDGES)[0]
    row = {
        "moving_pixels": _share(pixels > MOVING_PIXELS),
        "moving_normalized": _share(sizes > MOVING_PIXELS),
        "moving_ndc": _share(sizes > 2 * MOVING_PIXELS),
        "motion": float(pixels.mean()),
        "motion_bad": float(bad),
    }
    if pixels.max() <= NOISE:  # whether a vector that the grid has missed is longer; nearly always, all are zero
        row["motion"] = float(whole.any() and (np.abs(motion) > NOISE).any())
    if before is not None and row["motion"]:
        row["motion_same"] = float(np.array_equal(motion[at], before[at]) and np.array_equal(motion, before))
    return row


def depth_row(depth: NDArray, before: NDArray | None, at: GridIndex) -> dict[str, float]:
    """Of a depth file (H, W) as on disk and the one before; of the whole of it if the grid finds nothing there."""
    pixels = depth[at]
    there = is_there(pixels)
    row = _distances(pixels if there.any() else depth)
    if before is not None:
        # Whatever stands for nothing, it is the same nothing.
        pixels, earlier = np.where(there, pixels, 0), np.where(is_there(before[at]), before[at], 0)
        changed = np.abs(pixels - earlier) > CHANGED_DEPTH * earlier
        row["depth_changed"] = _share(changed)
        # Compared bit by bit, because NaN is not equal to itself.
        row["depth_same"] = float(not changed.any() and np.array_equal(depth.view(np.uint32), before.view(np.uint32)))
    return row


def _distances(depth: NDArray) -> dict[str, float]:
    """Of distances as on disk, (...)."""
    there = is_there(depth)
    too_far, too_near = (depth >= FAR_DEPTH) & (depth < np.inf), (depth > 0) & (depth < NEAR_DEPTH)
    kinds = (there, depth == np.inf, np.isnan(depth), depth == 0, depth < 0, too_far, too_near)
    row = {name: _share(kind) for name, kind in zip(("valid", *NOTHING), kinds, strict=True)} | {"at_farthest": 0.0}
    if not there.any():
        return row
    distances = depth[there]
    farthest = float(distances.max())
    row |= {"nearest": float(distances.min()), "median": float(np.median(distances)), "farthest": farthest}
    others = distances[distances < farthest]
    share = (len(distances) - len(others)) / depth.size
    if len(others) and farthest > MIN_CONSTANT_STEP * float(others.max()) and share >= MIN_CONSTANT_SHARE:
        row["at_farthest"] = share
    return row


def left_out_row(motion: NDArray, depth: NDArray, at: GridIndex) -> dict[str, float]:
    """Of a frame's motion (H, W, 2) and depth (H, W) as on disk."""
    there = is_there(depth[at])
    rests = {units: camera_rests(motion[at], there, MotionConvention(units).scale(*depth.shape)) for units in UNITS}
    return {f"left_out_{units}": 0.0 if resting else _share(~there) for units, resting in rests.items()}


def _share(condition: NDArray) -> float:
    return np.count_nonzero(condition) / condition.size
