"""To which frame a depth file belongs: an object's outline lies at the same pixels in its frame's motion and depth.

Where the motion jumps from one pixel to its neighbour, the distance does too, as long as both are of one instant; a
frame earlier or later the outline lies elsewhere. How fast anything moves, or speeds up, does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from motion_depth.doctor.photometry import (
    MAX_DEPTH_DIFFERENCE,
    NOISE,
    OFFSETS,
    Pixels,
    depth_error,
    finite,
    search_step,
)

SAMPLED_EDGES = 1000  # pairs of neighbouring pixels per motion file
MIN_EDGES = 20
JUMP = 0.25  # an edge is a difference of more than this share of the MIN_EDGES-th largest one
# Another frame's depth file must fit better by this share of what depth could jump there, in nearly every frame (in
# units of the standard error over frames).
FITS_BETTER, SURE = 0.1, 2.5


def weigh_edges(motion: Mapping[int, NDArray], depth: Mapping[int, NDArray], rng: np.random.Generator) -> NDArray:
    """How far depth jumps where motion does, for motion and depth files of each of OFFSETS.

    Args:
        motion, depth: files around a frame t as in `Window`, keyed by how many frames before t they lie.

    Returns:
        (OFFSETS, OFFSETS): motion file t + offset (rows) against depth file t + offset; the mean over the edges of the
        motion, 1 where the distance jumps by MAX_DEPTH_DIFFERENCE or more. NaN where a file or edges are missing.
    """
    jumps = np.full((len(OFFSETS), len(OFFSETS)), np.nan)
    for m, offset in enumerate(OFFSETS):
        one, other = _motion_edges(motion[-offset], rng)
        for d, depth_offset in enumerate(OFFSETS):
            if len(one[0]) and -depth_offset in depth:
                distances = depth[-depth_offset]
                jumps[m, d] = depth_error(distances[one], distances[other]).mean() / MAX_DEPTH_DIFFERENCE
    return jumps


def depth_offset(edges: Sequence[NDArray], motion_offset: int) -> int | None:
    """Frame t's depth lies in the file of frame t + this; None if that cannot be told.

    Args:
        edges: from `weigh_edges`, of some frames of a scene. motion_offset: frame t's motion lies in file t + this.
    """
    rows = np.array([each[OFFSETS.index(motion_offset)] for each in edges]).reshape(-1, len(OFFSETS))
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows) < 2:
        return None
    best = int(np.argmax(rows.mean(axis=0)))
    better = rows[:, [best]] - rows[:, [0] if best else [1, 2]]  # frames, others
    error = better.std(axis=0, ddof=1) / len(rows) ** 0.5
    return OFFSETS[best] if (better.mean(axis=0) >= np.maximum(FITS_BETTER, SURE * error)).all() else None


def _motion_edges(motion: NDArray, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Pixels, and their neighbours to the right or below, between which the motion (H, W, 2) jumps."""
    step = search_step(motion)
    first = int(rng.integers(step))
    across = _jumps(motion[first::step], axis=1)
    down = _jumps(motion[:, first::step], axis=0)
    jumps = np.concatenate([across.ravel(), down.ravel()])
    rank = min(MIN_EDGES, len(jumps))
    chosen = np.flatnonzero(jumps > max(NOISE, JUMP * np.partition(jumps, -rank)[-rank]))
    if len(chosen) < MIN_EDGES:
        chosen = chosen[:0]
    elif len(chosen) > SAMPLED_EDGES:
        chosen = rng.choice(chosen, SAMPLED_EDGES, replace=False)
    sideways = chosen < across.size
    lengths = np.where(sideways, across.shape[1], down.shape[1])
    row, column = np.divmod(np.where(sideways, chosen, chosen - across.size), lengths)
    row, column = np.where(sideways, first + step * row, row), np.where(sideways, column, first + step * column)
    return (row, column), (row + ~sideways, column + sideways)


def _jumps(motion: NDArray, axis: int) -> NDArray:
    """The larger of the differences in x and y between neighbours along an axis, of (H, W, 2)."""
    return np.maximum(*(np.abs(np.diff(finite(motion[..., channel]), axis=axis)) for channel in (0, 1)))
