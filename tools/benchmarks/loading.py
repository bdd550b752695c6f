"""The loader alone, against a straightforward serial reader of the same files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from motion_depth.batch import reduce_item
from motion_depth.data import MotionDepthDataset, create_motion_data_operator, raise_load_errors


def read_serially(dataset: MotionDepthDataset, scene: str, window: int) -> dict[str, list[np.ndarray]]:
    """A clip's files one after the other, by Pillow and numpy, kept as they are; nothing is made of them."""
    operator, index = dataset.operator, dataset.operator.index(scene)
    taken = index.frame_ids[window :: operator.stride(scene)][: operator.num_frames]
    every = range(taken[0], taken[-1] + 1)
    return {
        "rgb": [np.array(Image.open(index.rgb[frame]).convert("RGB")) for frame in taken],
        "motion": [np.load(index.motion[frame]) for frame in every[1:]],
        "depth": [np.load(index.depth[frame]) for frame in every],
    }


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
        read_serially(dataset, place.scene, place.window)  # so that the page cache holds them
    began = time.perf_counter()
    for place in places:
        read_serially(dataset, place.scene, place.window)
    serial = clips * num_frames / (time.perf_counter() - began)
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
        "serial_fps": serial, "ours_fps": ours, "ratio": ours / serial, "workers": workers, "clips": clips,
        "stride": operator.stride(places[0].scene), "size": [height, width, num_frames],
        "torch_threads": torch.get_num_threads(),
    }  # fmt: skip
