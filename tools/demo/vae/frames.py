"""Frames that the small VAE trains on and is scored on. Of scenes, which are large, they are packed into one file.

Axes: n scene, b clip, t frame, h and w rows and columns; RGB comes last in files and second in tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.data.layouts import find_scenes, open_scene
from motion_depth.data.scene import Scene
from motion_depth.files.atomic import complete_file, expect_file
from motion_depth.progress import ProgressBar
from motion_depth.tiny.vae import BLOCK, BLOCK_FRAMES

LOOKS = 3  # every other clip is the one of so many crops that changes most: little moves in a physics scene
LOOK_STEP = 2  # pixels and, times two, frames between what these are compared at


def open_scenes(bases: Sequence[Path], flag: str) -> list[Scene]:
    """All scenes under some folders, of one size and number of frames. ValueError if they differ, or there is none."""
    scenes = [open_scene(base, name) for base in bases for name in find_scenes(base)]
    if not scenes:
        raise ValueError(f"{flag} {' '.join(map(str, bases))}: no scenes found there")
    shape = (len(scenes[0].frame_ids), *scenes[0].size)
    for scene in scenes:
        if (found := (len(scene.frame_ids), *scene.size)) != shape:
            raise ValueError(
                f"{flag}: scene {scene.name} has {found[0]} frames of {found[1]}x{found[2]}, {scenes[0].name} has "
                f"{shape[0]} of {shape[1]}x{shape[2]}; expected one number and size for all"
            )
    return scenes


def pack_frames(scenes: Sequence[Scene], path: Path) -> None:
    """Write the scenes' pictures into one .npy file, uint8 (n, t, h, w, 3), whole or not at all."""
    shape = (len(scenes), len(scenes[0].frame_ids), *scenes[0].size, 3)
    with complete_file(path) as draft:
        packed = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        for number, scene in enumerate(ProgressBar(scenes, desc="packing", unit="scene")):
            packed[number] = [scene.rgb(frame) for frame in scene.frame_ids]
        packed.flush()


def open_frames(paths: Sequence[Path], num_frames: int, crop: int) -> list[np.ndarray]:
    """Packed frames, uint8 (n, t, h, w, 3) each, mapped into memory.

    Raises:
        ValueError: a file is not one of packed frames, or its scenes are smaller than a clip.
    """
    if num_frames % BLOCK_FRAMES != 1 or crop % BLOCK or crop < BLOCK:
        raise ValueError(
            f"--num_frames {num_frames}, --crop {crop}: expected 1 + {BLOCK_FRAMES}k frames and a multiple of {BLOCK} "
            "pixels"
        )
    return [_open(path, num_frames, crop) for path in paths]


def _open(path: Path, num_frames: int, crop: int) -> np.ndarray:
    try:
        frames = np.load(expect_file(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--frames {path}: cannot be read as packed frames ({error})") from None
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"--frames {path}: found {frames.dtype} {frames.shape}, expected uint8 (scenes, frames, height, width, 3) "
            "as tools/demo/pack_frames.py writes it"
        )
    _, found, height, width, _ = frames.shape
    if found < num_frames or min(height, width) < crop:
        raise ValueError(
            f"--frames {path}: scenes have {found} frames of {height}x{width}; expected at least --num_frames "
            f"{num_frames} of --crop {crop}x{crop}"
        )
    return frames


def draw_clips(files: Sequence[np.ndarray], count: int, num_frames: int, crop: int, seed: Sequence[int]) -> Tensor:
    """Random crops of random windows, every other one mirrored, uint8 (b, 3, t, crop, crop): a function of the seed."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([len(frames) for frames in files])
    clips = []
    for _ in range(count):
        number = int(rng.integers(ends[-1]))
        which = int(np.searchsorted(ends, number, side="right"))
        scene = files[which][number - ends[which]]
        start = int(rng.integers(len(scene) - num_frames + 1))
        window = scene[start : start + num_frames]
        corners = [
            [int(rng.integers(side - crop + 1)) for side in window.shape[1:3]]
            for _ in range(LOOKS if rng.random() < 0.5 else 1)
        ]
        top, left = max(corners, key=lambda corner: _change(window, corner, crop)) if len(corners) > 1 else corners[0]
        clip = window[:, top : top + crop, left : left + crop]
        clips.append(clip[:, :, ::-1] if rng.random() < 0.5 else clip)
    return torch.from_numpy(rearrange(np.stack(clips), "b t h w c -> b c t h w").copy())


def _change(window: np.ndarray, corner: Sequence[int], crop: int) -> float:
    top, left = corner
    looked_at = window[:: 2 * LOOK_STEP, top : top + crop : LOOK_STEP, left : left + crop : LOOK_STEP]
    return float(np.abs(np.diff(looked_at.astype(np.int16), axis=0)).mean())


def draw_windows(files: Sequence[np.ndarray], count: int, frames: int, seed: Sequence[int]) -> list[Tensor]:
    """Whole pictures of random windows, uint8 (frames, h, w, 3) each, sides cut to multiples of 16 pixels."""
    rng = np.random.default_rng(seed)
    windows = []
    for _ in range(count):
        scenes = files[int(rng.choice(len(files), p=np.array([len(f) for f in files]) / sum(map(len, files))))]
        scene = scenes[int(rng.integers(len(scenes)))]
        start = int(rng.integers(len(scene) - frames + 1))
        height, width = (side // BLOCK * BLOCK for side in scene.shape[1:3])
        windows.append(torch.from_numpy(scene[start : start + frames, :height, :width].copy()))
    return windows


def to_pixels(clips: Tensor, device: torch.device | str) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return clips.to(device).float() * (2 / 255) - 1


@dataclass(frozen=True)
class Heldout:
    """Windows to score on: uint8 (b, 3, t, h, w), and where true motion says that a pixel moves, (b, t, h, w)."""

    clips: Tensor
    moving: Tensor


def read_heldout(scenes: Sequence[Scene], num_frames: int, windows: int = 3) -> Heldout:
    """Of every scene some windows, spread over its frames. ValueError if scenes are shorter or do not fit the VAE."""
    frames, (height, width) = len(scenes[0].frame_ids), scenes[0].size
    if frames < num_frames or height % BLOCK or width % BLOCK:
        raise ValueError(
            f"--heldout: scenes have {frames} frames of {height}x{width}; expected at least --num_frames {num_frames}, "
            f"and sides that are multiples of {BLOCK} pixels"
        )
    starts = sorted({round(start) for start in np.linspace(0, frames - num_frames, windows)})
    clips, moving = [], []
    for scene in ProgressBar(scenes, desc="held-out scenes", unit="scene", leave=False):
        pictures = np.stack([scene.rgb(frame) for frame in scene.frame_ids])
        # The first frame has no predecessor; its file may hold anything, an empty array too.
        moves = np.stack([np.linalg.norm(scene.motion(frame), axis=-1) for frame in scene.frame_ids[1:]])
        moves = np.concatenate([np.zeros((1, height, width), dtype=bool), moves > MOVING_PIXELS])
        for start in starts:
            clips.append(rearrange(pictures[start : start + num_frames], "t h w c -> c t h w"))
            moving.append(moves[start : start + num_frames])
    return Heldout(torch.from_numpy(np.stack(clips)), torch.from_numpy(np.stack(moving)))
