"""Whether depth is measured along the ray or along the axis.

distance_to_camera is the length of the ray, distance_to_image_plane its part along the camera's axis. On a flat surface
the reciprocal of the latter is a linear function of the pixel, exactly; that of the former is one only after it was
multiplied by the ray's length per unit of depth, which follows from the field of view. So on patches that are flat, one
of the two fits far better than the other, whatever the camera.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.scene import is_there

PATCHES = 16  # along the shorter side
PATCH_POINTS = 6  # along each side of a patch
FIELDS_OF_VIEW = np.arange(16.0, 131.0, 3.0)  # degrees across the width
FINER, ROUNDS = 13, 4  # fields of view between the best one's neighbours, and how often
FLAT = 1e-3  # a patch is flat if a plane leaves less than this share of the distance
FITS_BETTER = 3.0  # how many times smaller the error of one kind of depth must be to rule out the other
MIN_FLAT_PATCHES = 6


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
