"""From the training sequence to batches on the device: which clip goes to which process, reading, encoding."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from motion_depth.batch import Batch, Sample, make_batch
from motion_depth.data import raise_load_errors
from motion_depth.noise import NoiseMixture
from motion_depth.stopping import leave_signals_to_the_parent
from motion_depth.wan import ClipEncoder, pad_contexts

PREFETCHED = 2  # batches that each loader process keeps ready


def rank_positions(start: int, total: int, rank: int, processes: int, batch_size: int) -> list[range]:
    """Positions of the training sequence that a process takes in iterations start .. total-1, a batch for each.

    Iteration i covers positions i x processes x batch_size onward, the processes side by side, so the sequence of clips
    that the model has seen after a number of iterations depends only on how many clips an iteration has.
    """
    per_iteration = processes * batch_size
    firsts = range(start * per_iteration + rank * batch_size, total * per_iteration, per_iteration)
    return [range(first, first + batch_size) for first in firsts]


class BatchLoader:
    """Iterates over (batch, seconds waited for its samples).

    Args:
        dataset: gives a `Sample` (or an error, see `raise_load_errors`) for a position.
        positions: a batch of positions per iteration.
        encoder: encodes samples that come as frames; None where they come encoded.
        seed: of sigma and noise.
        workers: loader processes; 0 loads in this one.
        loss_frames: see `make_batch`.
    """

    def __init__(
        self,
        dataset: Dataset,
        positions: list[range],
        encoder: ClipEncoder | None,
        mixture: NoiseMixture,
        seed: int,
        workers: int,
        device: torch.device,
        dtype: torch.dtype,
        loss_frames: int = 0,
    ):
        self.loader = DataLoader(
            dataset,
            batch_sampler=positions,
            num_workers=workers,
            collate_fn=list,
            pin_memory=torch.device(device).type == "cuda",
            prefetch_factor=PREFETCHED if workers else None,
            persistent_workers=False,
            worker_init_fn=leave_signals_to_the_parent,
        )
        self.encoder, self.mixture, self.seed, self.device, self.dtype = encoder, mixture, seed, device, dtype
        self.loss_frames = loss_frames

    def __iter__(self) -> Iterator[tuple[Batch, float]]:
        samples = iter(self.loader)
        while True:
            asked = time.perf_counter()
            try:
                found = next(samples)
            except StopIteration:
                return
            raise_load_errors(found)
            wait = time.perf_counter() - asked
            contexts = encode(found, self.encoder)
            yield make_batch(found, contexts, self.mixture, self.seed, self.device, self.dtype, self.loss_frames), wait


def encode(samples: list[Sample], encoder: ClipEncoder | None) -> Tensor:
    """Fills in latents of samples that come as frames; returns all contexts (b, 512, c), padded."""
    for sample in samples:
        if sample.latents is None:
            latents, first = encoder.frames(sample.frames[None])
            sample.latents, sample.first, sample.frames = latents[0], first[0], None
            sample.context = encoder.prompt(sample.prompt)
    return pad_contexts([sample.context for sample in samples])
