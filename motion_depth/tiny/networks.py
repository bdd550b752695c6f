"""The small VAE's convolutions: what surroundings and past add to the linear code of a block (block_code.py).

A residual block looks 3 x 3 around itself and, in the decoder, at the two steps before, never ahead. Features have
three strides: 16 (coarse), 8 (middle) and 4 (fine) pixels. The layer that joins a network to the linear code starts at
zero, so a network that has not been trained changes nothing.

Axes: b clip, t frame or latent step, k frame of a latent, c channel, h and w rows and columns; p, q row and column of
the cells that a coarser cell divides into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion_depth.latents import WAN22

FRAMES = WAN22.frames_per_latent  # of every latent but the first, which is one frame
PATCH = 4  # pixels, both ways, of a cell of the finest features
LOOK_BACK = 2  # steps
EPSILON = 1e-4  # of the norm, beside features of about unit size


class ResidualBlock(nn.Module):
    """x + mix(silu(conv(norm(x)))): 3 x 3 in space and, where asked for, this step and the LOOK_BACK before it.

    `mix` starts at zero, so that the block starts as the identity. The norm is over channels; it has no weights, which
    the convolution has anyway.
    """

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.time = time
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.mix = _zero(nn.Linear((1 + LOOK_BACK) * width if time else width, width))

    def forward(self, x: Tensor, clips: int) -> Tensor:
        """(b t, c, h, w) of b = `clips` clips -> the same shape."""
        normed = F.layer_norm(rearrange(x, "n c h w -> n h w c"), x.shape[1:2], eps=EPSILON)
        hidden = F.silu(self.conv(rearrange(normed, "n h w c -> n c h w")))
        hidden = rearrange(hidden, "(b t) c h w -> b t h w c", b=clips)
        if self.time:
            steps = hidden.shape[1]
            padded = F.pad(hidden, (0, 0, 0, 0, 0, 0, LOOK_BACK, 0))  # nothing is there before the first step
            hidden = torch.cat([padded[:, start : start + steps] for start in range(1 + LOOK_BACK)], dim=-1)
        return x + rearrange(self.mix(hidden), "b t h w c -> (b t) c h w")


class ConvolutionalEncoder(nn.Module):
    """(b, 3, 1 + 4k, 16 h, 16 w) in [-1, 1] -> (b, channels, 1 + k, h, w); a latent sees its own frames alone.

    Args:
        widths: of the fine, middle and coarse features.
    """

    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__()
        fine, middle, coarse = widths
        self.patches = nn.Conv2d(3 * PATCH**2, fine, 3, padding=1)
        self.fine = ResidualBlock(fine, time=False)
        self.halve = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = ResidualBlock(middle, time=False)
        self.first = LatentFeatures(middle, coarse, channels)
        self.rest = LatentFeatures(FRAMES * middle, coarse, channels)

    def frames(self, video: Tensor) -> Tensor:
        """Features of every frame by itself: (b, 3, t, 16 h, 16 w) -> (b, t, middle, 2 h, 2 w)."""
        clips = len(video)
        x = rearrange(video, "b c t (h p) (w q) -> (b t) (p q c) h w", p=PATCH, q=PATCH)
        x = self.fine(self.patches(_channels_last(x)), clips)
        x = self.middle(self.halve(x), clips)
        return rearrange(x, "(b t) c h w -> b t c h w", b=clips)

    def forward(self, video: Tensor) -> Tensor:
        # The first frame goes through by itself: its latent is the same, bit for bit, with and without the rest.
        first = self.first(rearrange(self.frames(video[:, :, :1]), "b t c h w -> b t 1 c h w"))
        if video.shape[2] == 1:
            return first
        rest = rearrange(self.frames(video[:, :, 1:]), "b (t k) c h w -> b t k c h w", k=FRAMES)
        return torch.cat([first, self.rest(rest)], dim=2)


class LatentFeatures(nn.Module):
    """Features of the k frames of each of t latents -> what is added to the latents' code."""

    def __init__(self, inputs: int, width: int, channels: int):
        super().__init__()
        self.halve = nn.Conv2d(inputs, width, 2, stride=2)
        self.coarse = ResidualBlock(width, time=False)
        self.out = _zero(nn.Conv2d(width, channels, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """(b, t, k, middle, 2 h, 2 w) -> (b, channels, t, h, w)."""
        clips = len(frames)
        x = self.halve(_channels_last(rearrange(frames, "b t k c h w -> (b t) (k c) h w")))
        return rearrange(self.out(self.coarse(x, clips)), "(b t) c h w -> b c t h w", b=clips)


class ConvolutionalDecoder(nn.Module):
    """(b, channels, 1 + k, h, w) -> (b, 3, 1 + 4k, 16 h, 16 w); a frame sees its latent and those before.

    Args:
        widths: of the coarse, middle and fine features.
        depths: residual blocks of each.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], channels: int):
        super().__init__()
        coarse, middle, fine = widths
        self.first = nn.Conv2d(channels, coarse, 1)
        self.rest = nn.Conv2d(channels, coarse, 1)
        self.coarse = nn.ModuleList(ResidualBlock(coarse, time=True) for _ in range(depths[0]))
        self.unfold = nn.Conv2d(coarse, middle * FRAMES * 2**2, 1)
        self.middle = nn.ModuleList(ResidualBlock(middle, time=True) for _ in range(depths[1]))
        self.widen = nn.Conv2d(middle, fine * 2**2, 1)
        self.fine = nn.ModuleList(ResidualBlock(fine, time=False) for _ in range(depths[2]))
        self.out = _zero(nn.Conv2d(fine, 3 * PATCH**2, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        clips = len(latents)
        first, rest = latents.tensor_split([1], dim=2)
        parts = [self._latents(self.first, first), *([self._latents(self.rest, rest)] if rest.shape[2] else [])]
        x = _channels_last(rearrange(torch.cat(parts, dim=1), "b t c h w -> (b t) c h w"))
        for block in self.coarse:
            x = block(x, clips)
        x = rearrange(self.unfold(x), "(b t) (k p q c) h w -> b (t k) (h p) (w q) c", b=clips, k=FRAMES, p=2, q=2)
        # Latent 0 is one frame, the last of those that it unfolds to.
        x = _channels_last(rearrange(x[:, FRAMES - 1 :], "b t h w c -> (b t) c h w"))
        for block in self.middle:
            x = block(x, clips)
        x = rearrange(rearrange(self.widen(x), "n (p q c) h w -> n (h p) (w q) c", p=2, q=2), "n h w c -> n c h w")
        for block in self.fine:
            x = block(x, clips)
        return rearrange(self.out(x), "(b t) (p q c) h w -> b c t (h p) (w q)", b=clips, p=PATCH, q=PATCH)

    @staticmethod
    def _latents(layer: nn.Conv2d, latents: Tensor) -> Tensor:
        """(b, channels, t, h, w) -> (b, t, coarse, h, w)."""
        x = layer(_channels_last(rearrange(latents, "b c t h w -> (b t) c h w")))
        return rearrange(x, "(b t) c h w -> b t c h w", b=len(latents))


def _zero(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
