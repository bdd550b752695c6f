"""From the training sequence to batches on the device: which clip goes to which process, reading, encoding."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from motion_depth.clips.batch import Batch, Sample, make_batch
from motion_depth.clips.dataset import raise_load_errors
from motion_depth.clips.noise import NoiseMixture
from motion_depth.model.backbone import Encoder, pad_contexts
from motion_depth.processes.signals import leave_signals_to_the_parent
from motion_depth.settings import Settings

PREFETCHED = 2  # batches that each loader process keeps ready

Moment = float | torch.cuda.Event  # of the host's clock, or in a GPU's order of work


def rank_positions(positions: range, rank: int, processes: int, batch_size: int) -> list[range]:
    """Positions of the training sequence that a process takes, a batch for each iteration.

    An iteration covers the next processes x batch_size positions, the processes side by side, so which clips the model
    has seen depends only on how many there were, not on how many processes took them.
    """
    firsts = range(positions.start + rank * batch_size, positions.stop, processes * batch_size)
    return [range(first, first + batch_size) for first in firsts]


class BatchLoader:
    """Iterates over batches on the device, and knows how long the device had to wait for them.

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
        encoder: Encoder | None,
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
        self.encoder, self.mixture, self.seed, self.dtype = encoder, mixture, seed, dtype
        self.device = torch.device(device)
        self.loss_frames = loss_frames
        self.waits: list[tuple[Moment, Moment]] = []

    @classmethod
    def of_run(
        cls,
        accelerator: Accelerator,
        settings: Settings,
        dataset: Dataset,
        encoder: Encoder | None,
        positions: range,
    ) -> BatchLoader:
        """This process's batches of a range of the training sequence."""
        return cls(
            dataset,
            rank_positions(positions, accelerator.process_index, accelerator.num_processes, settings.optim.batch_size),
            encoder,
            NoiseMixture.parse(settings.mixture),
            settings.optim.seed,
            settings.data.dataset_num_workers,
            accelerator.device,
            settings.optim.dtype,
            settings.loss.loss_frames if settings.with_heads else 0,
        )

    def __iter__(self) -> Iterator[Batch]:
        samples = iter(self.loader)
        while True:
            asked = self._now()
            try:
                found = next(samples)
            except StopIteration:
                return
            raise_load_errors(found)
            self.waits.append((asked, self._now()))
            contexts = encode(found, self.encoder, self.device)
            yield make_batch(found, contexts, self.mixture, self.seed, self.device, self.dtype, self.loss_frames)

    def waited(self) -> float:
        """Seconds since the last call that the device had nothing to do because the samples were not there.

        A GPU goes on with what it was given before while the host waits. Two events, which it passes in its own order
        of work, lie as far apart as it was idle. Call this where the host waits for the GPU anyway.
        """
        waits, self.waits = self.waits, []
        if self.device.type != "cuda":
            return sum(there - asked for asked, there in waits)
        for _, there in waits[-1:]:
            there.synchronize()
        return sum(asked.elapsed_time(there) for asked, there in waits) / 1000

    def _now(self) -> Moment:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def encode(samples: list[Sample], encoder: Encoder | None, device: torch.device | None = None) -> Tensor:
    """Fills in latents of samples that come as frames; returns all contexts (b, l, c), padded, on a given device."""
    for sample in samples:
        if sample.latents is None:
            latents, first = encoder.frames(sample.frames[None])
            sample.latents, sample.first, sample.frames = latents[0], first[0], None
            sample.context = encoder.prompt(sample.prompt)
    return pad_contexts([sample.context for sample in samples], device)
