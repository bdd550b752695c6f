"""Motion and depth as files that other programs read: npz, coloured point clouds, 16-bit depth pictures.

A file is whole or not there. Axes: t frame, h w pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from motion_depth.files.atomic import complete_file

MILLIMETRES = 1000.0
FARTHEST_PNG = 65.535  # metres: the largest distance that 16 bits hold in millimetres


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz of one quantity, see `Readout.arrays`."""
    with complete_file(path) as file:
        np.savez_compressed(file, **arrays)


def points_of(depth: Tensor, fov: float) -> Tensor:
    """Where the pixels of a pinhole camera are in space.

    Args:
        depth: (h, w) metres along the ray.
        fov: horizontal field of view in degrees, from the left edge of the picture to the right one.

    Returns:
        (h, w, 3) metres from the camera: x right, y down, z forward. Square pixels, optical axis in the middle.
    """
    h, w = depth.shape
    focal = w / 2 / math.tan(math.radians(fov) / 2)
    x = (torch.arange(w) - (w - 1) / 2).expand(h, w)
    y = (torch.arange(h) - (h - 1) / 2)[:, None].expand(h, w)
    ray = torch.stack([x, y, torch.full((h, w), focal)], dim=-1)
    return ray / ray.norm(dim=-1, keepdim=True) * depth[..., None]


def write_ply(path: Path, frame: Tensor, depth: Tensor, there: Tensor, fov: float) -> int:
    """A coloured point cloud of one frame (binary PLY), without the pixels where nothing is.

    Args:
        frame: (h, w, 3) uint8.
        depth: (h, w) metres along the ray.
        there: (h, w) bool.
        fov: horizontal, in degrees.

    Returns:
        The number of points.
    """
    there = there & depth.isfinite() & (depth > 0)
    names = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(int(there.sum()), dtype=names)
    for axis, values in zip("xyz", points_of(depth, fov)[there].unbind(dim=-1), strict=True):
        vertices[axis] = values.numpy()
    for channel, values in zip(("red", "green", "blue"), frame[there].unbind(dim=-1), strict=True):
        vertices[channel] = values.numpy()
    properties = [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in names]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres from the camera, x right, y down, z forward",
        f"element vertex {len(vertices)}",
        *properties,
        "end_header",
    ]
    with complete_file(path) as file:
        file.write_bytes("\n".join(header).encode() + b"\n" + vertices.tobytes())
    return len(vertices)


def write_depth_png(path: Path, depth: Tensor, there: Tensor) -> int:
    """One frame's distances in millimetres as a 16-bit grey PNG; 0 is "nothing there", as depth cameras write it.

    Args:
        depth: (h, w) metres along the ray.
        there: (h, w) bool.

    Returns:
        How many pixels are farther than 16 bits can say and were written as FARTHEST_PNG.
    """
    too_far = there & (depth > FARTHEST_PNG)
    millimetres = (depth.clamp(max=FARTHEST_PNG) * MILLIMETRES).round().clamp(min=1)
    values = torch.where(there, millimetres, 0.0).numpy().astype(np.uint16)
    with complete_file(path) as file:
        Image.fromarray(values).save(file, format="PNG")
    return int(too_far.sum())
