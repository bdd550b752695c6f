"""Whether depth is measured along the ray or along the axis, and to which frame a depth file belongs.

distance_to_camera is the length of the ray, distance_to_image_plane its part along the camera's axis. On a flat surface
the reciprocal of the latter is a linear function of the pixel, exactly; that of the former is one only after it was
multiplied by the ray's length per unit of depth, which follows from the field of view. So on patches that are flat, one
of the two fits far better than the other, whatever the camera.

An object's outline lies at the same pixels in its frame's motion and depth. Where the motion jumps from one pixel to
its neighbour, the distance does too, as long as both are of one instant; a frame earlier or later the outline lies
elsewhere. How fast anything moves, or speeds up, does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.scene import is_there
from motion_depth.doctor.photometry import (
    MAX_DEPTH_DIFFERENCE,
    NOISE,
    OFFSETS,
    Pixels,
    depth_error,
    finite,
    search_step,
)

PATCHES = 16  # along the shorter side
PATCH_POINTS = 6  # along each side of a patch
FIELDS_OF_VIEW = np.arange(16.0, 131.0, 3.0)  # degrees across the width
FINER, ROUNDS = 13, 4  # fields of view between the best one's neighbours, and how often
FLAT = 1e-3  # a patch is flat if a plane leaves less than this share of the distance
FITS_BETTER = 3.0  # how many times smaller the error of one kind of depth must be to rule out the other
MIN_FLAT_PATCHES = 6

SAMPLED_EDGES = 1000  # pairs of neighbouring pixels per motion file
MIN_EDGES = 20
JUMP = 0.25  # an edge is a difference of more than this share of the MIN_EDGES-th largest one
# Another frame's depth file must fit better by this share of what depth could jump there, in nearly every frame (in
# units of the standard error over frames).
FRAME_FITS_BETTER, SURE = 0.1, 2.5


def depth_kind(depth: NDArray) -> tuple[str, float]:
    """Of a depth map (H, W) as on disk: "camera" and the field of view in degrees, "image_plane" or "", and NaN.

    "": it cannot be told.
    """
    height, width = depth.shape
    side = max(PATCH_POINTS, min(height, width) // PATCHES)
    offsets = np.arange(PATCH_POINTS) * ((side - 1) // (PATCH_POINTS - 1))
    rows = (np.arange(height // side)[:, None] * side + offsets)[:, None, :, None]
    columns = (np.arange(width // side)[:, None] * side + offsets)[None, :, None, :]
    points = depth[rows, columns].reshape(-1, PATCH_POINTS**2).astype(np.float64)
    radius = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2).reshape(-1, PATCH_POINTS**2)
    whole = is_there(points).all(axis=1)
    inverse, radius = 1 / points[whole], radius[whole]

    def along_ray(fields: NDArray) -> NDArray:
        """(fields, patches): how flat the patches are, read as distances to a camera with these fields of view."""
        focals = width / 2 / np.tan(np.radians(fields) / 2)
        return np.stack([_flatness(inverse * np.hypot(1, radius / focal)) for focal in focals])

    along_axis, rays = _flatness(inverse), along_ray(FIELDS_OF_VIEW)
    flat = np.minimum(along_axis, rays.min(axis=0)) < FLAT
    if flat.sum() < MIN_FLAT_PATCHES:
        return "", math.nan
    inverse, radius, fields, errors = inverse[flat], radius[flat], FIELDS_OF_VIEW, np.median(rays[:, flat], axis=1)
    for _ in range(ROUNDS):
        best = int(errors.argmin())
        fields = np.linspace(fields[max(best - 1, 0)], fields[min(best + 1, len(fields) - 1)], FINER)
        errors = np.median(along_ray(fields), axis=1)
    ray, axis = errors.min(), np.median(along_axis[flat])
    if ray * FITS_BETTER < axis:
        return "camera", float(fields[errors.argmin()])
    return ("image_plane" if axis * FITS_BETTER < ray else ""), math.nan


def _flatness(values: NDArray) -> NDArray:
    """(patches, points) -> (patches,): root mean square of what a linear function leaves, as a share of the mean."""
    position = np.linspace(-1, 1, PATCH_POINTS)
    basis = np.stack(np.broadcast_arrays(1.0, position[:, None], position), axis=-1).reshape(-1, 3)
    rest = values - values @ basis @ np.linalg.inv(basis.T @ basis) @ basis.T
    return np.sqrt(np.square(rest).mean(axis=1)) / values.mean(axis=1)


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
    return OFFSETS[best] if (better.mean(axis=0) >= np.maximum(FRAME_FITS_BETTER, SURE * error)).all() else None


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
