"""From a scene's files to a clip with its targets: the clip, and the operator that loads one.

Axes: T frame, H height, W width. Motion follows the conventions of motion.py, files those of scene.py.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffsynth.core.data.operators import DataProcessingOperator
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from motion_depth.data.clip_frame import ClipFrame
from motion_depth.data.layouts import open_scene
from motion_depth.data.motion import CoverCrop, MotionConvention, cover_crop
from motion_depth.data.scene import Scene
from motion_depth.data.windows import usable_frames, windows
from motion_depth.latents import WAN22, LatentLayout, is_integer
from motion_depth.processes.ranks import local_world_size
from motion_depth.readouts import READOUTS, further_kinds
from motion_depth.readouts.targets import Target, Targets

READ_THREADS = 4  # at most, for one clip's files; decoding and reading release the GIL


@dataclass
class MotionDepthClip:
    """A clip with its targets; tensors of one length T and one size H, W, checked on construction.

    Attributes:
        frames: (T, H, W, 3) uint8.
        targets: by quantity (`readouts.READOUTS`) a map (T, ..., H, W) float32, 0 where it is invalid, and its mask
            (T, H, W) bool. Those of motion and depth are attributes as well:
        motion: (T, 2, H, W) pixels of this size, backward flow (x, y) to the previous frame of the clip.
        motion_valid: all False at frame 0, which has no previous frame; where nothing is there, only while the camera
            rests in every step between the two frames (`convention.camera_rests`).
        depth: (T, H, W) metres along the ray.
        depth_valid: False where nothing is there (`scene.is_there`).
        frame_ids: (T,) int64, the frame numbers of the files.
        scene: the CSV's `video`.
    """

    frames: Tensor
    targets: Targets
    frame_ids: Tensor
    scene: str

    def __post_init__(self) -> None:
        t, h, w = self.frames.shape[:3]
        for name, (shape, dtype) in self.layout(t, h, w).items():
            found = getattr(self, name) if name in ("frames", "frame_ids") else self._target(name)
            if (tuple(found.shape), found.dtype) != (shape, dtype):
                raise ValueError(f"{name}: found {tuple(found.shape)} {found.dtype}, expected {shape} {dtype}")

    motion = property(lambda self: self.targets["motion"].map)
    motion_valid = property(lambda self: self.targets["motion"].valid)
    depth = property(lambda self: self.targets["depth"].map)
    depth_valid = property(lambda self: self.targets["depth"].valid)

    def _target(self, name: str) -> Tensor:
        return self.targets[name].map if name in self.targets else self.targets[name.removesuffix("_valid")].valid

    @staticmethod
    def layout(t: int, h: int, w: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each tensor of a clip of t frames of h x w pixels; of targets `<name>`, `<name>_valid`."""
        targets = {}
        for name, readout in READOUTS.items():
            targets[name] = (t, *readout.map_channels, h, w), torch.float32
            targets[f"{name}_valid"] = (t, h, w), torch.bool
        return {"frames": ((t, h, w, 3), torch.uint8), **targets, "frame_ids": ((t,), torch.int64)}


class LoadImageSequenceWithMotionWrapper(DataProcessingOperator):
    """DiffSynth operator: a scene's name, or (name, window), to a MotionDepthClip; a name alone means window 0.

    Window w of a scene is its clip that starts at its w-th frame; all clips of a scene have the same stride. Built by
    `create_motion_data_operator`. Composes with `>>`, can be pickled, and returns the same clip for the same argument.
    """

    def __init__(
        self,
        base_path: str | Path,
        height: int,
        width: int,
        num_frames: int,
        frame_stride: int | Literal["auto"],
        convention: MotionConvention,
    ):
        self.base_path = Path(base_path)
        self.height, self.width, self.num_frames = height, width, num_frames
        self.frame_stride = frame_stride
        self.convention = convention
        self._scenes: dict[str, Scene] = {}

    def __call__(self, data: str | tuple[str, int]) -> MotionDepthClip:
        """Load a clip. Raises ValueError for bad data, see scene.py, and for a window that the scene does not have."""
        scene, window = (data, 0) if isinstance(data, str) else data
        count = self.num_windows(scene)
        if not 0 <= window < count:
            raise ValueError(f"scene {scene!r}: found window {window}, expected one from 0 to {count - 1}")
        frames = self.clip_frames(scene, window)
        clip = self._empty_clip(scene, [frame.number for frame in frames])
        threads = read_threads()
        if threads == 1:
            for t, frame in enumerate(frames):
                _load_frame(clip, t, frame)
            return clip
        with ThreadPoolExecutor(threads) as pool:
            # `list` hands on the first error; files that nobody has begun to read then stay unread.
            list(pool.map(_load_frame, repeat(clip), range(self.num_frames), frames))
        return clip

    def pictures(self, scene: str, window: int = 0) -> Tensor:
        """The `frames` of a clip, for which no other file is read."""
        return torch.from_numpy(np.stack([read_pixels(frame) for frame in self.clip_frames(scene, window)]))

    def clip_frames(self, scene: str, window: int) -> list[ClipFrame]:
        """The frames of a clip, as targets are made of them; nothing is read."""
        opened, stride = self.scene(scene), self.stride(scene)
        crop = cover_crop(opened.size, (self.height, self.width))
        numbers = opened.frame_ids[window::stride][: self.num_frames]
        return [
            ClipFrame(opened, number, range(number, number - stride, -1) if t else range(0), crop, self.convention)
            for t, number in enumerate(numbers)
        ]

    def scene(self, name: str) -> Scene:
        """A scene, listed and checked once. Raises ValueError, see `open_scene`."""
        if name not in self._scenes:
            self._scenes[name] = open_scene(self.base_path, name, further_kinds())
        return self._scenes[name]

    def stride(self, scene: str) -> int:
        """Frames of the scene per frame of a clip. Raises ValueError if the scene is too short."""
        return self._windows(scene)[0]

    def num_windows(self, scene: str) -> int:
        """How many distinct clips the scene has. Raises ValueError if the scene is too short."""
        return self._windows(scene)[1]

    def _windows(self, scene: str) -> tuple[int, int]:
        frames, offset = len(self.scene(scene).frame_ids), self.convention.frame_offset
        stride, count = windows(frames, self.num_frames, self.frame_stride, offset)
        if count:
            return stride, count
        usable, longest = usable_frames(frames, offset), windows(frames, self.num_frames, "auto", offset)[0]
        found = f"scene {scene!r} in {self.base_path}: found {usable} frames"
        if offset > 0:
            found += f" with motion at --motion_frame_offset {offset}"
        if not longest:
            raise ValueError(f"{found}, expected at least the {self.num_frames} of a clip (--num_frames)")
        needed = (self.num_frames - 1) * self.frame_stride + 1
        raise ValueError(
            f"{found}, expected {needed} for {self.num_frames} frames at --frame_stride {self.frame_stride}; "
            f"the largest that fits is {longest}"
        )

    def _empty_clip(self, scene: str, numbers: list[int]) -> MotionDepthClip:
        """A clip of zeros, to be filled frame by frame, each by one thread."""
        layout = MotionDepthClip.layout(self.num_frames, self.height, self.width)
        zeros = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in layout.items()}
        targets = Targets({name: Target(zeros[name], zeros[f"{name}_valid"]) for name in READOUTS})
        return MotionDepthClip(zeros["frames"], targets, torch.tensor(numbers), scene)


def _load_frame(clip: MotionDepthClip, t: int, frame: ClipFrame) -> None:
    """Fill in frame t of the clip."""
    np.copyto(clip.frames[t].numpy(), read_pixels(frame))
    for name, readout in READOUTS.items():
        for whole, part in zip(clip.targets[name], readout.target(frame), strict=True):
            whole[t] = part


def read_pixels(frame: ClipFrame) -> np.ndarray:
    """A frame's picture in the clip's size, uint8 (H, W, 3); it may be read-only."""
    pixels = frame.scene.rgb(frame.number)
    if frame.crop.source == frame.crop.target:
        return pixels
    return np.asarray(resize_image(Image.fromarray(pixels), frame.crop))


def read_threads() -> int:
    """Threads that read one clip: the cores there are for each loader process on this machine, at most READ_THREADS.

    More would only stand in each other's way.
    """
    worker = get_worker_info()
    loaders = (worker.num_workers if worker else 1) * local_world_size()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(READ_THREADS, cores // loaders))


def create_motion_data_operator(
    base_path: str | Path,
    height: int = 480,
    width: int = 480,
    num_frames: int = 49,
    frame_stride: int | Literal["auto"] = "auto",
    motion_units: str = "pixels",
    motion_direction: str = "backward",
    motion_y_axis: str = "down",
    motion_frame_offset: int = 0,
    layout: LatentLayout = WAN22,
) -> LoadImageSequenceWithMotionWrapper:
    """The operator that loads clips from the scenes under `base_path`.

    Args:
        height, width: of a clip, in pixels, multiples of the layout's (WAN: 32); pictures are scaled to cover it and
            cut at the centre.
        num_frames: of a clip, as the layout has them (WAN: 4k+1 with k >= 1).
        frame_stride: frames of a scene per frame of a clip; "auto" is the largest that fits, for each scene.
        motion_units, motion_direction, motion_y_axis, motion_frame_offset: of the files, see `MotionConvention`.
        layout: of the backbone that the clips are for.

    Raises:
        ValueError: one of them is not as said here; the message names the training script's flag.
    """
    layout.check_size(height, width)
    layout.check_frames(num_frames)
    if frame_stride != "auto" and (not is_integer(frame_stride) or frame_stride < 1):
        raise ValueError(f"--frame_stride: found {frame_stride!r}, expected a whole number from 1 on, or auto")
    convention = MotionConvention(motion_units, motion_direction, motion_y_axis, motion_frame_offset)
    if not Path(base_path).is_dir():
        raise ValueError(f"--dataset_base_path {base_path}: there is no such folder")
    return LoadImageSequenceWithMotionWrapper(base_path, height, width, num_frames, frame_stride, convention)


def resize_image(image: Image.Image, crop: CoverCrop) -> Image.Image:
    """As the library's ImageCropAndResize: antialiased bilinear to cover the target, then the centre."""
    if crop.source == crop.target:
        return image
    (height, width), (target_height, target_width) = crop.resized, crop.target
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((crop.left, crop.top, crop.left + target_width, crop.top + target_height))
