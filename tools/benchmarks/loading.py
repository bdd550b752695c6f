"""The loader alone, against a straightforward serial reader of the same files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from motion_depth.cache.cached import clip_files
from motion_depth.clips.batch import reduce_item
from motion_depth.clips.dataset import ClipId, MotionDepthDataset, create_motion_data_operator, raise_load_errors
from motion_depth.data.scene import DEPTH, MOTION, RGB


def read_serially(dataset: MotionDepthDataset, scene: str, window: int) -> dict[str, np.ndarray]:
    """A clip as one would first write it: every file by Pillow or numpy, one after the other, stacked to arrays."""
    operator, opened = dataset.operator, dataset.operator.scene(scene)
    taken = opened.frame_ids[window :: operator.stride(scene)][: operator.num_frames]
    every = range(taken[0], taken[-1] + 1)
    return {
        "rgb": np.stack([np.array(Image.open(opened.files[RGB][frame]).convert("RGB")) for frame in taken]),
        "motion": np.stack([np.load(opened.files[MOTION][frame]) for frame in every[1:]]),
        "depth": np.stack([np.load(opened.files[DEPTH][frame]) for frame in every]),
    }


def only_read(dataset: MotionDepthDataset, scene: str, window: int) -> None:
    """The same files, each dropped as soon as it is decoded: what reading costs before anything is done with it."""
    for path in clip_files(dataset.operator, scene, window):
        np.load(path) if path.suffix == ".npy" else np.array(Image.open(path).convert("RGB"))


def measure_loader(base: Path, metadata: Path, size: tuple[int, int, int], workers: int, clips: int) -> dict:
    """Frames per second of clips (not of files) that each way reads, all files in the page cache.

    Args:
        size: (height, width, num_frames). workers: loader processes of ours. clips: that each way reads.
    """
    height, width, num_frames = size
    operator = create_motion_data_operator(base, height, width, num_frames)
    dataset = MotionDepthDataset(base, metadata, operator, repeat=1000, reduce=reduce_item)
    places = [dataset.clip_at(position) for position in range(clips)]
    for place in places:
        only_read(dataset, place.scene, place.window)  # so that the page cache holds them
    serial, reading = (clips * num_frames / _seconds(way, dataset, places) for way in (read_serially, only_read))
    # Counted between two samples while all workers are busy, so that neither their start nor their last clips count.
    loader = DataLoader(
        dataset, sampler=range(clips + 4 * max(1, workers)), batch_size=1, num_workers=workers, collate_fn=list,
        prefetch_factor=1 if workers else None,
    )  # fmt: skip
    began = 0.0
    for number, samples in enumerate(loader):
        raise_load_errors(samples)
        if number == 2 * workers:
            began = time.perf_counter()
        if number == 2 * workers + clips:
            break
    ours = clips * num_frames / (time.perf_counter() - began)
    return {
        "serial_fps": serial, "only_reading_fps": reading, "ours_fps": ours, "ratio": ours / serial,
        "workers": workers, "clips": clips, "stride": operator.stride(places[0].scene),
        "size": [height, width, num_frames],
    }  # fmt: skip


def _seconds(read: Callable, dataset: MotionDepthDataset, places: list[ClipId]) -> float:
    began = time.perf_counter()
    for place in places:
        read(dataset, place.scene, place.window)
    return time.perf_counter() - began
