"""Frames that the tests of the tiny model share: two squares that move over a smooth, still background."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

HEIGHT, WIDTH, FRAMES, SCENES = 64, 96, 13, 3


def render(seed: int) -> np.ndarray:
    """The frames of one scene: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(2 * np.pi * (rng.uniform(0, 2) * y / HEIGHT + rng.uniform(0, 2) * x / WIDTH)) for _ in range(3)]
    background = 120 + 50 * np.stack(waves, axis=-1)
    frames = []
    for t in range(FRAMES):
        frame = background.copy()
        for top, left, step in ((5, 4, 3), (38, 60, -4)):
            frame[top : top + 20, left + step * t : left + step * t + 20] = (220, 60 + 8 * seed, 30)
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def windows(step: int = 1) -> list[torch.Tensor]:
    """Windows of four frames of all scenes, one at every `step`-th frame: uint8 (4, H, W, 3) each."""
    scenes = [torch.from_numpy(render(seed)) for seed in range(SCENES)]
    return [frames[start : start + 4] for frames in scenes for start in range(0, FRAMES - 3, step)]


def write_scenes(base: Path, seeds: range = range(SCENES)) -> Path:
    """One scene folder per seed under `base`. Numbers are unpadded: frame 10 comes after 9, not after 1."""
    for seed in seeds:
        folder = base / f"test_scene_{seed}" / "env_0" / "0" / "0" / "rgb"
        folder.mkdir(parents=True)
        for number, frame in enumerate(render(seed)):
            Image.fromarray(frame).save(folder / f"step_{number}.png")
    return base


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB, of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean()))
