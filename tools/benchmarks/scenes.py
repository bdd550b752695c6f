"""Scene files to read: a textured background at rest and a ball that rolls through, in the dataset's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

BALL_RADIUS = 0.13  # of the picture's width: the ball covers about 5 % of it
SPEED = 2.0  # pixels a frame
PROMPT = "A ball rolls across the floor from left to right and passes in front of a box."


def write_scene(folder: Path, frames: int, height: int, width: int) -> None:
    """Writes `frames` frames of rgb/, motion_vectors/ and distance_to_camera/."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    background = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    background = background + rng.integers(0, 3, background.shape, np.uint8)  # as fine a grain as a renderer leaves
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = 3 + 2 * (1 - y / height)
    for name in ("rgb", "motion_vectors", "distance_to_camera"):
        (folder / name).mkdir(parents=True)
    for frame in range(frames):
        centre = (0.2 * width + SPEED * frame) % width
        ball = (x - centre) ** 2 + (y - 0.6 * height) ** 2 < (BALL_RADIUS * width) ** 2
        rgb, motion, depth = background.copy(), np.zeros((height, width, 4), np.float32), ground.astype(np.float32)
        rgb[ball] = (200 - x[ball] + centre)[:, None].clip(0, 255)
        motion[ball, 0] = -SPEED
        depth[ball] = 2.5
        Image.fromarray(rgb).save(folder / f"rgb/rgb_{frame:04d}.png")
        np.save(folder / f"motion_vectors/motion_vectors_{frame:04d}.npy", motion)
        np.save(folder / f"distance_to_camera/distance_to_camera_{frame:04d}.npy", depth)


def write_dataset(base: Path, frames: int, height: int, width: int) -> Path:
    """One scene `ball` under `base`, and the CSV that is returned."""
    write_scene(base / "ball", frames, height, width)
    (base / "metadata.csv").write_text(f'video,prompt\nball,"{PROMPT}"\n')
    return base / "metadata.csv"
