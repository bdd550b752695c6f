"""What a depth map says about itself: what stands for nothing, and whether it is measured along the ray or the axis.

distance_to_camera is the length of the ray, distance_to_image_plane its part along the camera's axis. On a flat surface
the reciprocal of the latter is a linear function of the pixel, exactly; that of the former is one only after it was
multiplied by the ray's length per unit of depth, which follows from the field of view. So on patches that are flat, one
of the two fits far better than the other, whatever the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH, is_there

PATCHES = 16  # along the shorter side
PATCH_POINTS = 6  # along each side of a patch
FIELDS_OF_VIEW = np.arange(16.0, 131.0, 3.0)  # degrees across the width
FLAT = 1e-3  # a patch is flat if a plane leaves less than this share of the distance
FITS_BETTER = 3.0  # how many times smaller the error of one kind of depth must be to rule out the other
MIN_FLAT_PATCHES = 6

# A far value that stands for nothing: many pixels hold exactly the largest distance, far behind all others.
MIN_CONSTANT_SHARE, MIN_CONSTANT_STEP = 0.002, 1.5


@dataclass(frozen=True)
class PlaneFit:
    """How flat the flat patches are, read as each kind of depth: median error as a share of the distance.

    along_ray: at the field of view that fits best, `field_of_view` degrees across the width. along_axis: read as
    distance_to_image_plane. patches: how many are flat in one of the two readings.
    """

    along_ray: float
    along_axis: float
    field_of_view: float
    patches: int

    @property
    def kind(self) -> str:
        """ "camera", "image_plane", or "" if it cannot be told."""
        if self.patches < MIN_FLAT_PATCHES:
            return ""
        if self.along_ray * FITS_BETTER < self.along_axis:
            return "camera"
        return "image_plane" if self.along_axis * FITS_BETTER < self.along_ray else ""


def fit_planes(depth: NDArray) -> PlaneFit:
    """Look for flat surfaces in a depth map (H, W) as on disk."""
    height, width = depth.shape
    side = max(PATCH_POINTS, min(height, width) // PATCHES)
    offsets = np.arange(PATCH_POINTS) * ((side - 1) // (PATCH_POINTS - 1))
    rows = (np.arange(height // side)[:, None] * side + offsets)[:, None, :, None]
    columns = (np.arange(width // side)[:, None] * side + offsets)[None, :, None, :]
    points = depth[rows, columns].reshape(-1, PATCH_POINTS**2).astype(np.float64)
    radius = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2).reshape(-1, PATCH_POINTS**2)
    whole = is_there(points).all(axis=1)
    inverse, radius = 1 / points[whole], radius[whole]
    focals = width / 2 / np.tan(np.radians(FIELDS_OF_VIEW) / 2)
    along_axis = _flatness(inverse)
    errors = np.stack([_flatness(inverse * np.hypot(1, radius / focal)) for focal in focals])
    flat = np.minimum(along_axis, errors.min(axis=0)) < FLAT
    if not flat.any():
        return PlaneFit(math.inf, math.inf, math.nan, 0)
    medians = np.median(errors[:, flat], axis=1)
    best = _refine(focals, medians, lambda f: np.median(_flatness(inverse[flat] * np.hypot(1, radius[flat] / f))))
    along_ray = float(np.median(_flatness(inverse[flat] * np.hypot(1, radius[flat] / best))))
    field_of_view = math.degrees(2 * math.atan(width / 2 / best))
    return PlaneFit(along_ray, float(np.median(along_axis[flat])), field_of_view, int(flat.sum()))


def _flatness(values: NDArray) -> NDArray:
    """(patches, points) -> (patches,): root mean square of what a linear function leaves, as a share of the mean."""
    position = np.linspace(-1, 1, PATCH_POINTS)
    basis = np.stack(np.broadcast_arrays(1.0, position[:, None], position), axis=-1).reshape(-1, 3)
    rest = values - values @ basis @ np.linalg.inv(basis.T @ basis) @ basis.T
    return np.sqrt(np.square(rest).mean(axis=1)) / values.mean(axis=1)


def _refine(focals: NDArray, errors: NDArray, error_of) -> float:
    """The focal length with the least error, between the neighbours of the best of a grid (golden section)."""
    i = int(np.argmin(errors))
    low, high = focals[min(i + 1, len(focals) - 1)], focals[max(i - 1, 0)]  # focals descend
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(20):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        low, high = (low, right) if error_of(left) < error_of(right) else (left, high)
    return (low + high) / 2


@dataclass(frozen=True)
class DepthFrame:
    """One depth file. Shares are of all pixels; distances are of those that are valid: something is there.

    too_far, too_near: finite and above 0, but beyond what counts as something there (`scene.is_there`).
    """

    valid: float
    infinite: float
    not_a_number: float
    zero: float
    negative: float
    too_far: float
    too_near: float
    nearest: float
    median: float
    farthest: float
    at_farthest: float  # share of pixels at exactly the farthest distance, if it lies far behind all others; else 0


def describe(depth: NDArray) -> DepthFrame:
    """Describe a depth map as on disk, or some of its pixels."""
    valid = is_there(depth)
    too_far, too_near = (depth >= FAR_DEPTH) & (depth < np.inf), (depth > 0) & (depth < NEAR_DEPTH)
    kinds = (valid, depth == np.inf, np.isnan(depth), depth == 0, depth < 0, too_far, too_near)
    shares = [np.count_nonzero(kind) / depth.size for kind in kinds]
    distances = depth[valid]
    if not len(distances):
        return DepthFrame(*shares, math.nan, math.nan, math.nan, 0.0)
    nearest, farthest = float(distances.min()), float(distances.max())
    before_farthest = distances[distances < farthest]
    at_farthest = (len(distances) - len(before_farthest)) / depth.size
    behind_all = len(before_farthest) > 0 and farthest > MIN_CONSTANT_STEP * float(before_farthest.max())
    constant = at_farthest if behind_all and at_farthest >= MIN_CONSTANT_SHARE else 0.0
    return DepthFrame(*shares, nearest, float(np.median(distances)), farthest, constant)
