"""The small VAE's linear code: 48 numbers for an RGB block of 16 x 16 pixels and one or four frames.

The numbers are the block's principal components, not whitened: an error in them is an error in pixels. A Hadamard
matrix, whose entries have one size, then turns them, so that every channel has the same variance, and noise in training
and generation hits all alike; whitened, the component with 64 % of a block's energy would count as much as the last.

A physics clip is static nearly everywhere, so few of its components describe change. Counting change over a block's
four frames twice in the fit decodes moving pixels 0.3 dB better and still ones 0.7 dB worse, and then an error in the
latents is no longer one in pixels.

Axes: b clip, c channel, t latent step, h and w rows and columns of latents; k, p, q frame, row, column in a block.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn

from motion_depth.latents import WAN22

CHANNELS = WAN22.channels
BLOCK = WAN22.stride  # pixels, both ways
BLOCK_FRAMES = WAN22.frames_per_latent  # of every latent but the first, which is one frame
OVERSAMPLING = 16  # further directions that the randomised decomposition follows, for its accuracy


class BlockCode(nn.Module):
    """Affine maps between RGB blocks of `frames` x 16 x 16 pixels and `channels` numbers. Computed in float32."""

    def __init__(self, frames: int, channels: int):
        super().__init__()
        size = 3 * frames * BLOCK * BLOCK
        self.frames = frames
        self.mean = nn.Parameter(torch.zeros(size))
        self.into = nn.Parameter(torch.zeros(channels, size))
        self.back = nn.Parameter(torch.zeros(size, channels))

    def encode(self, video: Tensor) -> Tensor:
        """(b, 3, frames * t, 16 h, 16 w) in [-1, 1] -> float32 (b, channels, t, h, w)."""
        with torch.autocast(video.device.type, enabled=False):
            codes = (to_blocks(video, self.frames).float() - self.mean.float()) @ self.into.float().T
        return rearrange(codes, "b t h w c -> b c t h w")

    def decode(self, codes: Tensor) -> Tensor:
        """(b, channels, t, h, w) -> float32 (b, 3, frames * t, 16 h, 16 w)."""
        with torch.autocast(codes.device.type, enabled=False):
            codes = rearrange(codes.float(), "b c t h w -> b t h w c")
            return from_blocks(codes @ self.back.float().T + self.mean.float(), self.frames)

    @torch.no_grad()
    def fit(self, blocks: Tensor, seed: int) -> None:
        """Set the maps from float32 blocks (n, 3 * frames * 16 * 16) with values in [-1, 1]; the code has variance 1.

        A randomised decomposition, many times faster than an exact one; equal blocks and seeds give equal components.
        """
        channels = len(self.into)
        mean = blocks.mean(dim=0)
        centred = blocks - mean
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _, _, basis = torch.svd_lowrank(centred, q=channels + OVERSAMPLING, niter=6)
        components = basis[:, :channels].T
        # A component's sign is arbitrary. Its largest entry is made positive, so that equal data give equal files.
        largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        components = hadamard(channels) @ (components * largest.sign())
        scale = (centred @ components.T).square().mean().sqrt()
        self.mean.copy_(mean)
        self.into.copy_(components / scale)
        self.back.copy_(components.T * scale)


def to_blocks(video: Tensor, frames: int) -> Tensor:
    """(b, 3, frames * t, 16 h, 16 w) -> (b, t, h, w, 3 * frames * 16 * 16)."""
    return rearrange(video, "b c (t k) (h p) (w q) -> b t h w (c k p q)", k=frames, p=BLOCK, q=BLOCK)


def from_blocks(blocks: Tensor, frames: int) -> Tensor:
    """The inverse of `to_blocks`."""
    return rearrange(blocks, "b t h w (c k p q) -> b c (t k) (h p) (w q)", k=frames, p=BLOCK, q=BLOCK, c=3)


def hadamard(order: int = CHANNELS) -> Tensor:
    """(48, 48) orthonormal with entries of one size, float32: Paley's matrix of order 12 times Sylvester's of order 4.

    Raises:
        ValueError: another order.
    """
    if order != 48:
        raise ValueError(f"a Hadamard matrix of order {order}: only that of order 48 is built here")
    prime = 11
    squares = {i * i % prime for i in range(1, prime)}
    character = torch.tensor([0] + [1 if i in squares else -1 for i in range(1, prime)], dtype=torch.float64)
    index = torch.arange(prime)
    skew = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = character[(index[:, None] - index) % prime]
    paley = skew + torch.eye(prime + 1, dtype=torch.float64)
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    return (torch.kron(paley, torch.kron(two, two)) / order**0.5).float()


def draw_blocks(windows: Iterable[Tensor], blocks_per_window: int, seed: int) -> Tensor:
    """Blocks to fit to, float32 (n, 3 * 4 * 16 * 16) in [-1, 1], on a grid with a random phase in every window.

    Args:
        windows: each four frames in a row: uint8 (4, H, W, 3), sides >= 16.

    Raises:
        ValueError: there are too few blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for window in windows:
        blocks = _window_blocks(window, generator)
        drawn.append(blocks[torch.randperm(len(blocks), generator=generator)[:blocks_per_window]])
    blocks = torch.cat(drawn)
    if len(blocks) <= CHANNELS + OVERSAMPLING:
        raise ValueError(
            f"{len(blocks)} RGB blocks are too few to fit {CHANNELS} components: give more or larger frames"
        )
    return blocks


def _window_blocks(window: Tensor, generator: torch.Generator) -> Tensor:
    _, height, width, _ = window.shape
    top, left = (int(torch.randint(side % BLOCK + 1, (), generator=generator)) for side in (height, width))
    height, width = (side // BLOCK * BLOCK for side in (height, width))
    frames = window[:, top : top + height, left : left + width].float() * (2 / 255) - 1
    return to_blocks(rearrange(frames, "k y x c -> 1 c k y x"), BLOCK_FRAMES).flatten(0, 3)
