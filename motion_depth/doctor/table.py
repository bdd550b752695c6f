"""The numbers that each frame gives, whatever the motion convention: a row per frame, taken on a grid of its pixels."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.data.motion import MotionConvention, Units
from motion_depth.data.resting import camera_rests
from motion_depth.data.scene import is_there
from motion_depth.doctor.depth import describe
from motion_depth.doctor.photometry import NOISE

GRID_PIXELS = 10_000  # of a frame
CHANGED_LEVELS = 8  # a pixel of a picture has changed if one of its colours has by more than this
CHANGED_DEPTH = 0.01  # as a share of the distance
# Speeds are counted in bins of equal ratio, OCTAVE to the factor two, from SLOWEST on; bin 0 holds what is slower.
SLOWEST, OCTAVE = 2.0**-12, 8
SPEED_BINS = 28 * OCTAVE + 1


class Grid:
    """Which pixels of a frame are looked at: every n-th row and column, others in each frame."""

    def __init__(self, height: int, width: int):
        self.step = max(1, round((height * width / GRID_PIXELS) ** 0.5))

    def at(self, number: int) -> tuple[slice, slice]:
        """The index that takes the grid of a frame's number out of an array (H, W, ...)."""
        return slice(number % self.step, None, self.step), slice(number // self.step % self.step, None, self.step)


def picture_row(rgb: NDArray, before: NDArray | None, grid: tuple[slice, slice], digest: Any) -> dict[str, float]:
    """Numbers of a picture (H, W, 3) uint8 and the one before; the grid's pixels are added to the digest.

    brightest, darkest: 0 to 255. picture_changed: share of pixels that differ. picture_same: 1 if none does.
    """
    pixels = np.ascontiguousarray(rgb[grid])
    digest.update(pixels)
    row = {"brightest": float(pixels.max()), "darkest": float(pixels.min())}
    if before is not None:
        earlier = before[grid]
        difference = np.maximum(pixels, earlier) - np.minimum(pixels, earlier)
        red, green, blue = np.moveaxis(difference > CHANGED_LEVELS, -1, 0)
        row["picture_changed"] = _share(red | green | blue)
        row["picture_same"] = float(not difference.any() and np.array_equal(rgb, before))
    return row


def motion_row(motion: NDArray, before: NDArray | None, grid: tuple[slice, slice], speeds: NDArray) -> dict[str, float]:
    """Numbers of a motion file (H, W, 2) as on disk and the one before; the grid's vectors are counted in `speeds`.

    motion: mean length of the vectors, in the file's unit; 0 if none is longer than NOISE. moving_<unit>: share of
    pixels that move if the file is in that unit. motion_bad: vectors that are not finite. motion_same: 1 if no vector
    differs, and not all are 0.
    """
    height, width = motion.shape[:2]
    # Looking at the whole file is several times faster than at two of its four channels.
    whole = motion if motion.base is None else motion.base
    with np.errstate(over="ignore", invalid="ignore"):
        bad = 0 if np.isfinite(whole.sum()) else np.count_nonzero(~np.isfinite(motion).all(axis=-1))
    x, y = np.ascontiguousarray(np.moveaxis(motion[grid], -1, 0), np.float32)
    if bad:
        x, y = (np.where(np.isfinite(each), each, np.float32(0)) for each in (x, y))
    with np.errstate(over="ignore"):
        pixels, sizes = np.sqrt(x * x + y * y), np.sqrt(np.square(x * width) + np.square(y * height))
    for kind, lengths in enumerate((pixels, sizes)):
        moving = lengths[lengths >= SLOWEST]  # mostly few, and logarithms are slow
        speeds[kind] += np.bincount(_speed_bin(moving), minlength=SPEED_BINS)
        speeds[kind, 0] += lengths.size - moving.size
    row = {
        "moving_pixels": _share(pixels > MOVING_PIXELS),
        "moving_normalized": _share(sizes > MOVING_PIXELS),
        "moving_ndc": _share(sizes > 2 * MOVING_PIXELS),
        "motion": float(pixels.mean()) if pixels.max() > NOISE else float(_moves(motion, whole)),
        "motion_bad": float(bad),
    }
    if before is not None and row["motion"]:
        row["motion_same"] = float(np.array_equal(motion[grid], before[grid]) and np.array_equal(motion, before))
    return row


def _moves(motion: NDArray, whole: NDArray) -> bool:
    """Whether a vector that the grid has missed is longer than NOISE; nearly always, `whole` is all zero."""
    return bool(whole.any() and (np.abs(motion) > NOISE).any())


def depth_row(depth: NDArray, before: NDArray | None, grid: tuple[slice, slice]) -> dict[str, float]:
    """Numbers of a depth file (H, W) as on disk and the one before.

    depth_changed: share of pixels whose distance does. depth_same: 1 if no pixel differs. The others are DepthFrame's.
    """
    pixels = depth[grid]
    there = is_there(pixels)
    row = vars(describe(pixels if there.any() else depth)).copy()
    if before is not None:
        earlier = before[grid]
        # Whatever stands for nothing, it is the same nothing.
        pixels, earlier = np.where(there, pixels, 0), np.where(is_there(earlier), earlier, 0)
        changed = np.abs(pixels - earlier) > CHANGED_DEPTH * earlier
        row["depth_changed"] = _share(changed)
        # Compared bit by bit, because NaN is not equal to itself.
        row["depth_same"] = float(not changed.any() and np.array_equal(depth.view(np.uint32), before.view(np.uint32)))
    return row


def left_out_row(motion: NDArray, depth: NDArray, grid: tuple[slice, slice]) -> dict[str, float]:
    """Numbers of a frame's motion (H, W, 2) and depth (H, W) as on disk.

    left_out_<unit>: share of pixels whose motion takes no part if the file is in that unit: nothing is there, and the
    camera is not known to rest.
    """
    there = is_there(depth[grid])
    return {
        f"left_out_{units}": 0.0
        if camera_rests(motion[grid], there, MotionConvention(units).scale(*depth.shape))
        else _share(~there)
        for units in get_args(Units)
    }


def speed_of_bin(position: NDArray | float) -> NDArray | float:
    """The speed at a place in the bins: bin b, from 1 on, reaches from speed_of_bin(b) to speed_of_bin(b + 1)."""
    return SLOWEST * 2.0 ** ((position - 1) / OCTAVE)


def _speed_bin(speeds: NDArray) -> NDArray:
    """speeds from SLOWEST on."""
    bins = np.log2(speeds / SLOWEST) * OCTAVE + 1
    return np.minimum(bins, SPEED_BINS - 1).astype(np.intp)


def _share(condition: NDArray) -> float:
    return np.count_nonzero(condition) / condition.size
