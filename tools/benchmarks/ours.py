"""Our loop, put together from the parts that the training script uses; without a cache and with one."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from motion_depth.cache.cached import CachedDataset, ClipCache
from motion_depth.cache.encode import encode_missing
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.clips.noise import NoiseMixture
from motion_depth.model.backbone import Encoder
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import head_losses, total_loss
from motion_depth.readouts.statistics import neutral
from motion_depth.training.loader import BatchLoader
from motion_depth.training.optimizer import adamw, named_trainable
from tools.benchmarks.timing import StepClock

# What a cache calls the weights that it is made with.
WEIGHTS = {part: ["benchmark"] for part in ("vae", "text_encoder", "tokenizer")}


def fill_cache(
    folder: Path, dataset: MotionDepthDataset, encoder: Encoder, dtype: torch.dtype, clips: int
) -> tuple[CachedDataset, float]:
    """Encodes the first clips of the sequence; their dataset, and seconds per clip."""
    cache = ClipCache(folder, dataset, WEIGHTS, dtype)
    missing = cache.missing(range(clips))
    began = time.perf_counter()
    encode_missing(cache, missing, encoder, progress=False)
    return CachedDataset(cache), (time.perf_counter() - began) / max(1, len(missing.clips))


def batches(
    dataset: Any, encoder: Encoder | None, steps: int, batch_size: int, workers: int, device: torch.device,
    dtype: torch.dtype, stage: int, clips: int,
) -> BatchLoader:  # fmt: skip
    """As the script's: a batch of positions per step, from the first `clips` of the sequence again and again."""
    positions = itertools.islice(itertools.cycle(range(clips)), steps * batch_size)
    per_step = [list(itertools.islice(positions, batch_size)) for _ in range(steps)]
    mixture = NoiseMixture.parse("1,1,1" if stage == 1 else "0,0,1")
    return BatchLoader(dataset, per_step, encoder, mixture, 0, workers, device, dtype)


def run_ours(accelerator: Accelerator, model: MotionDepthModel, loader: BatchLoader, stage: int) -> StepClock:
    """One optimizer update per batch. Returns what the steps took."""
    optimizer = adamw(model, 1e-4, 1e-4, 0.01)
    prepared = accelerator.prepare_model(model)
    parameters = list(named_trainable(model).values())
    clock = StepClock(accelerator.device)
    weights = dict.fromkeys([*READOUTS, *(["flow"] if stage == 2 else [])], 1.0)
    for batch in loader:
        predictions = prepared(
            batch.latents, batch.first, batch.context, batch.noise, batch.sigma, stage == 2, batch.frames
        )
        losses = head_losses(predictions, batch.targets, neutral().scales)
        if stage == 2:
            losses["flow_loss"] = predictions["flow_loss"]
        accelerator.backward(total_loss(losses, weights).mean())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.end_step()
        clock.waits.append(loader.waited())
    return clock
