"""From a clip to what one training step needs: samples that are small to move, and batches of them.

Axes: b clip, t frame, h w pixel, f latent frame, c channel, l text token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motion_depth.clips.dataset import MotionDepthClip
from motion_depth.clips.noise import NoiseMixture, clip_frames, clip_noise, clip_sigma
from motion_depth.readouts.targets import Targets


@dataclass
class Sample:
    """One clip on its way to the model, as frames (to be encoded) or already encoded.

    Attributes:
        position: place in the training sequence.
        scene, window, prompt: as in the CSV, and which of the scene's windows.
        targets: unbatched, maps in float16; empty where nothing is compared with them.
        frames: (t, h, w, 3) uint8, or None once encoded.
        latents, first, context: (c, f, h/16, w/16), (c, 1, h/16, w/16), (l, c) trimmed to the prompt's tokens, or None.
    """

    position: int
    scene: str
    window: int
    prompt: str
    targets: Targets
    frames: Tensor | None = None
    latents: Tensor | None = None
    first: Tensor | None = None
    context: Tensor | None = None

    def pin_memory(self) -> Sample:
        """Everything in memory that a GPU copies from while it computes; the loader calls this."""
        moved = {name: value.pin_memory() for name, value in vars(self).items() if hasattr(value, "pin_memory")}
        return replace(self, **moved)


def pack_targets(clip: MotionDepthClip) -> Targets:
    """A clip's targets in float16, unbatched: 0.05 % of a depth, 0.004 px of an 8 px motion."""
    return clip.targets.to("cpu", torch.float16)


def reduce_item(item: dict, with_targets: bool = True) -> Sample:
    """A dataset item to a sample; runs in the loader's worker, so that less crosses the process boundary."""
    clip: MotionDepthClip = item["video"]
    targets = pack_targets(clip) if with_targets else Targets()
    return Sample(item["position"], clip.scene, item["window"], item["prompt"], targets, frames=clip.frames)


@dataclass
class Batch:
    """What `MotionDepthModel.forward` and the losses need, on the training device.

    Attributes:
        latents, noise: (b, c, f, h/16, w/16). first: (b, c, 1, h/16, w/16). context: (b, l, c). sigma: (b,) float32.
        targets: float32 and bool, of the frames that are decoded.
        frames: (b, n) those frames, or None for all.
        positions: of each clip, for the log.
    """

    latents: Tensor
    first: Tensor
    context: Tensor
    noise: Tensor
    sigma: Tensor
    targets: Targets
    positions: list[int]
    frames: Tensor | None = None


def make_batch(
    samples: Sequence[Sample],
    contexts: Tensor,
    noise_levels: NoiseMixture | float,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    loss_frames: int = 0,
) -> Batch:
    """Encoded samples to a batch; sigma and noise are functions of the seed and each clip's position.

    Args:
        contexts: (b, l, c), the samples' contexts padded.
        noise_levels: that sigma is drawn from; a number is the sigma of all.
        loss_frames: frames of each clip that are decoded and compared; 0: all.
    """
    latents = _stack([sample.latents for sample in samples], device, dtype)
    noise = torch.stack([clip_noise(tuple(latents.shape[1:]), seed, sample.position) for sample in samples])
    sigmas = [
        noise_levels if isinstance(noise_levels, float) else clip_sigma(noise_levels, seed, sample.position)
        for sample in samples
    ]
    targets = Targets.stack([sample.targets.to(device, None) for sample in samples])
    frames = None
    if loss_frames:
        total = next(targets.tensors()).shape[1]
        chosen = [clip_frames(loss_frames, total, seed, sample.position) for sample in samples]
        frames = _move(torch.stack(chosen), device)
        targets = targets.take(frames)
    return Batch(
        latents=latents,
        first=_stack([sample.first for sample in samples], device, dtype),
        context=contexts.to(device, dtype, non_blocking=True),
        noise=_move(noise.to(dtype), device),
        sigma=_move(torch.tensor(sigmas, dtype=torch.float32), device),
        targets=targets.to(device),
        positions=[sample.position for sample in samples],
        frames=frames,
    )


def _move(value: Tensor, device: torch.device) -> Tensor:
    """What was made here to the device, through pinned memory: out of any other a GPU's host waits for its copies."""
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


def _stack(values: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A batch on the device; stacked there, because a copy out of pinned memory does not wait and stacking unpins."""
    return torch.stack([value.to(device, non_blocking=True) for value in values]).to(dtype)
