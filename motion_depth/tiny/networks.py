"""The small VAE's convolutions: what surroundings and past add to the decoded linear code of a block (block_code.py).

A residual block looks 3 x 3 around itself and, but for the finest, at the two steps before, never ahead. Features have
three strides: 16 (coarse), 8 (middle) and 4 (fine) pixels. The last layer starts at zero, so a network that has not
been trained changes nothing.

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
