"""Scenes that the tests of the data write: any arrays, or a plain scene of a picture that glides to the right."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from motion_depth.clips.dataset import LoadImageSequenceWithMotionWrapper, MotionDepthClip, create_motion_data_operator

FRAMES, HEIGHT, WIDTH, STEP = 12, 64, 96, 2  # of the plain scene; it glides STEP pixels a frame
FIELDS = ("frames", "motion", "motion_valid", "depth", "depth_valid", "frame_ids")


def write_scene(folder: Path, rgb: np.ndarray, motion: np.ndarray, depth: np.ndarray, first: int = 0) -> Path:
    """Write rgb uint8 (T, H, W, 3), motion (T, H, W, 4) and depth (T, H, W) as frames `first`, `first` + 1, ..."""
    for name in ("rgb", "motion_vectors", "distance_to_camera"):
        (folder / name).mkdir(parents=True)
    for number, (picture, vectors, distance) in enumerate(zip(rgb, motion, depth, strict=True), start=first):
        Image.fromarray(picture).save(folder / f"rgb/step_{number:04d}.png")
        np.save(folder / f"motion_vectors/motion_vectors_{number:04d}.npy", vectors)
        np.save(folder / f"distance_to_camera/{number:04d}.npy", distance)
    return folder


def gliding(frames: int, height: int, width: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture that glides `step` pixels to the right a frame: rgb, motion, depth.

    Its red channel and its depth encode the same place on the picture: depth = 1 + red / 100, up to rounding.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32)
    place = [x - step * t + step * frames for t in range(frames)]
    red = [120 + 60 * np.sin(p / 17) + 40 * np.cos(y / 13) for p in place]
    rest = [np.stack([120 + 80 * np.cos(p / 11), 120 + 80 * np.sin((p + y) / 15)], axis=-1) for p in place]
    rgb = np.stack([np.concatenate([r[..., None], two], axis=-1) for r, two in zip(red, rest, strict=True)])
    motion = np.zeros((frames, height, width, 4), np.float32)
    motion[..., 0] = -step
    return rgb.round().astype(np.uint8), motion, (1 + np.stack(red) / 100).astype(np.float32)


def plain_scene(folder: Path, frames: int = FRAMES, first: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """The plain scene; the motion of its very first frame is an empty array, as Replicator may leave it."""
    rgb, motion, depth = gliding(frames, *size, STEP)
    write_scene(folder, rgb, motion, depth, first)
    np.save(folder / f"motion_vectors/motion_vectors_{first:04d}.npy", np.zeros((0,), np.float32))
    return folder


def make_operator(
    base: Path, height: int = HEIGHT, width: int = WIDTH, num_frames: int = 5, **settings
) -> LoadImageSequenceWithMotionWrapper:
    """An operator for plain scenes."""
    return create_motion_data_operator(base, height=height, width=width, num_frames=num_frames, **settings)


def same(one: MotionDepthClip, other: MotionDepthClip) -> bool:
    """Whether two clips are equal in every bit."""
    return one.scene == other.scene and all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def link_files(source: Path, target: Path) -> None:
    """A copy of folders whose files are hard links: to be replaced, and not written to."""
    shutil.copytree(source, target, copy_function=lambda one, other: Path(other).hardlink_to(one))
