"""Layers of the dense head: space-time mixing on the token grid, latent rate to frame rate, frames to full resolution.

Axes: b clip, n frame of any clip, f latent frame, t video frame (t = 4 (f - 1) + 1), h w a grid, c channel.
Strides are in pixels, WAN's: DiT tokens 32, latents 16, decoder 8 and 4, output 1 (heads.py says of others).

Sources: the ConvNeXt block (Liu et al. 2022), DPT's residual unit (Ranftl et al. 2021), learned convex upsampling of
RAFT (Teed and Deng 2020).
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

COORDINATE_OCTAVES = 3


class SpaceTimeBlock(nn.Module):
    """Attention over all tokens of the clip, then a ConvNeXt block: depthwise 3x3x3, LayerNorm, channel MLP.

    Attention sees the whole clip at once (how the camera stands, what is where); the convolution sees what is next to
    what, which is where motion shows.
    """

    def __init__(self, width: int, head_width: int = 32):
        super().__init__()
        self.head_width = head_width
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.depthwise = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(b, f, h, w, c) to the same."""
        f, h, w = x.shape[1:4]
        qkv = self.query_key_value(self.attention_norm(x))
        query, key, value = rearrange(qkv, "b f h w (three n d) -> three b n (f h w) d", three=3, d=self.head_width)
        seen = rearrange(
            F.scaled_dot_product_attention(query, key, value), "b n (f h w) d -> b f h w (n d)", f=f, h=h, w=w
        )
        x = x + self.attention_out(seen)
        y = rearrange(self.depthwise(rearrange(x, "b f h w c -> b c f h w")), "b c f h w -> b f h w c")
        return x + self.mlp(self.norm(y))


def coordinates(h: int, w: int, like: Tensor, octaves: int = COORDINATE_OCTAVES) -> Tensor:
    """Where a cell lies in the picture: (h, w, 4 octaves), sines and cosines of y and x.

    y and x of a cell's centre run from 0 at the top and left edge of the picture to 1 at the bottom and right edge,
    whatever the grid, so a head trained at one size knows top from bottom at another.
    """
    y, x = ((torch.arange(n, device=like.device) + 0.5) / n for n in (h, w))
    angles = torch.stack(torch.broadcast_tensors(y[:, None], x[None, :]), dim=-1)[..., None]
    angles = rearrange(angles * math.pi * 2.0 ** torch.arange(octaves, device=like.device), "h w yx o -> h w (yx o)")
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)


class ResidualConv(nn.Module):
    """Two 3x3(x3) convolutions with pre-activation and a skip, in 2 or 3 dimensions (DPT's residual unit).

    No normalisation: how fast and how far are magnitudes, and a norm over a frame takes them away. It starts as the
    identity instead (the second convolution is zero), which helps training without norms (Fixup, Zhang et al. 2019).
    """

    def __init__(self, channels: int, dims: int):
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.layers = nn.Sequential(
            nn.SiLU(),
            conv(channels, channels, 3, padding=1),
            nn.SiLU(),
            conv(channels, channels, 3, padding=1),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def take_frames(x: Tensor, frames: Tensor | None) -> Tensor:
    """Frames (b, n) of x (b, t, ...), or all of them."""
    return x if frames is None else x[torch.arange(len(x), device=x.device)[:, None], frames]


class TimeExpansion(nn.Module):
    """Latent rate to frame rate: latent 0 gives one frame, every latent k after it `frames`, from latents k-1 and k."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.first = nn.Conv3d(channels, channels, 1)
        self.rest = nn.Conv3d(channels, frames * channels, (2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, f, h, w) to (b, c, t, h, w)."""
        first = self.first(x[:, :, :1])
        if x.shape[2] == 1:
            return first
        rest = rearrange(self.rest(x), "b (s c) f h w -> b c (f s) h w", s=self.frames)
        return torch.cat([first, rest], dim=2)


class FrameDecoder(nn.Module):
    """Frames one by one from stride 16 to stride 4, then to full resolution by learned convex (or bilinear) upsampling.

    A latent holds 16 x 16 pixels in its channels. Besides what the trunk makes of them, they are unfolded straight to
    strides 8 and 4, so that edges need not pass through the trunk's narrow stride 16.

    No operation looks across frames, so any number of frames at a time gives the same result.
    """

    def __init__(
        self, widths: tuple[int, int, int], latent_channels: int, out_channels: int, latent_stride: int, convex: bool
    ):
        """widths: channels at strides 16, 8, 4. latent_channels: 0 for a decoder that reads no latents."""
        super().__init__()
        c16, c8, c4 = widths
        self.to_8, self.to_4 = unfold_conv(c16, c8, 2), unfold_conv(c8, c4, 2)
        self.latents_to_8 = unfold_conv(latent_channels, c8, 2) if latent_channels else None
        self.latents_to_4 = unfold_conv(latent_channels, c4, 4) if latent_channels else None
        self.block_16, self.block_8, self.block_4 = (ResidualConv(c, 2) for c in widths)
        self.out = nn.Conv2d(c4, out_channels, 3, padding=1)
        self.upsampling = latent_stride // 4
        self.mask = nn.Conv2d(c4, 9 * self.upsampling**2, 1) if convex else None

    def forward(self, x: Tensor, latents: Tensor | None = None) -> Tensor:
        """(n, c16, h, w) and latents (n, c, h, w), both per frame at stride 16, to (n, out, 16h, 16w)."""
        x = self.to_8(self.block_16(x))
        if latents is not None:
            x = x + self.latents_to_8(latents)
        x = self.to_4(self.block_8(x))
        if latents is not None:
            x = x + self.latents_to_4(latents)
        # Leaky, so that no large update can silence the output for good: without norms activations are not bounded.
        x = F.leaky_relu(self.block_4(x), 0.1)
        coarse = self.out(x).float()
        if self.mask is None:
            return F.interpolate(coarse, scale_factor=self.upsampling, mode="bilinear", align_corners=False)
        return convex_upsample(coarse, self.mask(x).float(), self.upsampling)


def unfold_conv(channels: int, out_channels: int, factor: int) -> nn.Sequential:
    """A 3x3 convolution and a pixel shuffle: (n, channels, h, w) to (n, out_channels, factor h, factor w)."""
    return nn.Sequential(nn.Conv2d(channels, factor**2 * out_channels, 3, padding=1), nn.PixelShuffle(factor))


def convex_upsample(coarse: Tensor, mask: Tensor, stride: int) -> Tensor:
    """Every fine value is a convex combination of the 3x3 coarse neighbours (RAFT, section 3.3).

    Args:
        coarse: (n, c, h, w).
        mask: (n, 9 stride^2, h, w), logits over the neighbours.

    Returns:
        (n, c, stride h, stride w). A constant map stays the constant, up to the picture's border.
    """
    h, w = coarse.shape[2:]
    weights = rearrange(mask, "n (k s) h w -> k n 1 s h w", k=9).softmax(dim=0)
    # Not F.pad: torch.compile takes the gradient of its "replicate" for contiguous, which here it is not (torch 2.15).
    padded = torch.cat([coarse[..., :1], coarse, coarse[..., -1:]], dim=-1)
    padded = torch.cat([padded[..., :1, :], padded, padded[..., -1:, :]], dim=-2)
    fine = 0.0
    for weight, (row, column) in zip(weights, itertools.product(range(3), range(3)), strict=True):
        # One neighbour at a time: the products of all nine at once would be the largest tensor of the head.
        fine = fine + weight * padded[:, :, None, row : row + h, column : column + w]
    return rearrange(fine, "n c (p q) h w -> n c (h p) (w q)", p=stride, q=stride)
