"""What one step of the small VAE's training computes: noise, loss, update, running means.

Axes: b clip, c channel, t latent step or frame, h and w rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion_depth.tiny.vae import CausalAutoencoder
from tools.demo.vae.frames import Heldout, to_pixels

MOVING_COLOUR = 0.06  # a pixel that changes by more from frame to frame, of 2, counts as moving, and so do those around
AROUND = 5  # pixels, both ways
MOVING_WEIGHT, FIRST_WEIGHT = 5.0, 4.0  # of moving pixels and of the first frame, against still pixels
NOISY_FIRST = 0.3  # of the clips with noise have it, halved, on latent 0 too, which generation gives clean
CODE_RATE = 0.03  # of the learning rate: at the whole of it the linear code diverges
WARMUP, LOWEST_RATE = 100, 0.02  # steps; share of the learning rate at the end
LONGEST_AVERAGE = 0.998
BESIDE_PIXELS = ("decoder.first.", "decoder.rest.", "decoder.out.")  # layers that AdamW trains, matrices or not


class Optimizers:
    """What decodes is trained: Muon for the network's matrices, AdamW for all else.

    Muon takes matrices only. A convolution's weight goes in as a view, one row for each output.
    """

    def __init__(self, model: CausalAutoencoder, learning_rate: float):
        codes = [model.first_code.back, model.rest_code.back]
        networks = [(name, each) for name, each in model.named_parameters() if name.startswith("decoder")]
        self.weights = [each for name, each in networks if each.ndim > 1 and not name.startswith(BESIDE_PIXELS)]
        others = [each for name, each in networks if each.ndim == 1 or name.startswith(BESIDE_PIXELS)]
        self.trained = [*codes, *(each for _, each in networks)]
        for each in self.trained:
            each.requires_grad_(True)
        self.matrices = [nn.Parameter(each.detach().view(len(each), -1)) for each in self.weights]
        self.learning_rate = learning_rate
        groups = [{"params": others, "share": 1.0}, {"params": codes, "share": CODE_RATE}]
        matrices = [{"params": self.matrices, "share": 1.0}]
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01),
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        ]

    def step(self, step: int, steps: int) -> None:
        """Update number `step` of `steps`: warm-up, then a cosine to LOWEST_RATE."""
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.grad = weight.grad.reshape(matrix.shape)
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        rate = self.learning_rate * min(1, (step + 1) / WARMUP) * (LOWEST_RATE + (1 - LOWEST_RATE) * cosine)
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.step()
        for weight in self.trained:
            weight.grad = None

    def state(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load(self, states: Sequence[dict]) -> None:
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


def loss_of(model: CausalAutoencoder, video: Tensor, noise: float, seed: int, dtype: torch.dtype) -> Tensor:
    """Weighted squared error, times 100, of clips (b, 3, t, h, w) that went through noised latents."""
    with torch.autocast(video.device.type, dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            latents = model.encode(video)
        decoded = model.decode(latents + _noise(latents, noise, seed))
    weight = _pixel_weights(video)
    return 100 * (weight * (decoded - video).square().mean(dim=1)).mean()


def _noise(latents: Tensor, most: float, seed: int) -> Tensor:
    """Half of the clips get noise of a level up to `most`."""
    generator = torch.Generator().manual_seed(seed)
    count = len(latents)
    level = torch.rand(count, generator=generator) * most * (torch.rand(count, generator=generator) < 0.5)
    first = 0.5 * level * (torch.rand(count, generator=generator) < NOISY_FIRST)
    levels = torch.stack([first, *[level] * (latents.shape[2] - 1)], dim=1)
    noise = rearrange(levels, "b t -> b 1 t 1 1") * torch.randn(latents.shape, generator=generator)
    return noise.to(latents)


@torch.no_grad()
def _pixel_weights(video: Tensor) -> Tensor:
    """(b, 3, t, h, w) -> (b, t, h, w), mean 1."""
    change = F.pad((video[:, :, 1:] - video[:, :, :-1]).abs().amax(dim=1), (0, 0, 0, 0, 1, 0))
    moving = (change > MOVING_COLOUR).float()
    for size in ((AROUND, 1), (1, AROUND)):
        moving = F.max_pool2d(moving, size, stride=1, padding=(size[0] // 2, size[1] // 2))
    weight = 1 + (MOVING_WEIGHT - 1) * moving
    weight[:, 0] = FIRST_WEIGHT
    return weight / weight.mean()


@torch.no_grad()
def average(mean: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """Let the running mean of the weights follow them; the first steps count little in it."""
    share = 1 - min(LONGEST_AVERAGE, (step + 1) / (step + 10))
    for name, tensor in model.state_dict().items():
        mean[name].lerp_(tensor, share)


@torch.no_grad()
def normalise(model: CausalAutoencoder, windows: Sequence[Tensor], device: str) -> None:
    """Set the statistics of a model that has none by whole windows, uint8 (t, h, w, 3) each.

    A training crop would be wrong for it: it is more often one of much detail.
    """
    latents = [model.encode(to_pixels(rearrange(window, "t h w c -> 1 c t h w"), device)) for window in windows]
    for row, part in enumerate(torch.cat(latents).tensor_split([1], dim=2)):
        model.mean[row], model.std[row] = part.mean(dim=(0, 2, 3, 4)), part.std(dim=(0, 2, 3, 4))


@torch.no_grad()
def psnr(model: CausalAutoencoder, heldout: Heldout, device: str) -> dict[str, float]:
    """In dB, pooled over the pixels of all windows: of first frames, of moving and of still pixels of the others."""
    squared, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for clip, moving in zip(heldout.clips, heldout.moving, strict=True):
        video = to_pixels(clip[None], device)
        decoded = model.decode(model.encode(video)).clamp(-1, 1)
        error = (decoded - video).square().mean(dim=1)[0].double().cpu()
        for number, chosen in enumerate(_regions(moving)):
            squared[number] += error[chosen].sum()
            count[number] += chosen.sum()
    decibels = 10 * torch.log10(4 / (squared / count))  # pixels run over [-1, 1]
    return dict(zip(("first", "moving", "still"), decibels.tolist(), strict=True))


def _regions(moving: Tensor) -> Iterator[Tensor]:
    first = torch.zeros_like(moving)
    first[0] = True
    yield first
    yield moving & ~first
    yield ~moving & ~first
