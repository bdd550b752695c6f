"""The tiny model's autoencoders, both behind the library's VAE interface.

`LinearVideoVAE` is what `tools/demo/make_tiny_wan.py` fits: the principal components of RGB blocks in WAN2.2's causal
layout of 1 + 4k frames and 16x16 pixels with 48 channels. Random convolutions in its place hide motion from whatever
reads the features; principal components keep it. `TinyWanVideoVAE38` is the real convolutional VAE at small width.

A physics clip is static nearly everywhere, so its plain components describe texture and few describe change. Change
over a block's four frames therefore counts CHANGE_WEIGHT times in the fit. Measured on demo scenes that were not
fitted: a small convolutional readout of motion from the latents errs about 5 % less, moving pixels are decoded at
20.2 instead of 19.8 dB, still ones at 27.7 instead of 28.5 dB.

Axes: b clip, c channel, t latent step, h and w rows and columns of latents; k, p, q frame, row, column in a block.
"""

from collections.abc import Iterable

import torch
from diffsynth.models.wan_video_vae import VideoVAE38_, WanVideoVAE, WanVideoVAE38
from einops import rearrange
from torch import Tensor, nn

from motion_depth.latents import WAN22

Z_DIM = WAN22.channels
BLOCK = WAN22.stride  # pixels, both ways
BLOCK_FRAMES = WAN22.frames_per_latent  # of every latent but the first, which is one frame
COLOUR_STEP = 2 / 255  # one step of 8-bit colour when pixels run over [-1, 1]
CHANGE_WEIGHT = 2.0  # of a pixel's change over a block's four frames, against its mean over them
OVERSAMPLING = 16  # further directions that the randomised decomposition follows, for its accuracy


class BlockPCA(nn.Module):
    """Affine map between RGB blocks of `frames` x 16 x 16 pixels and `z_dim` normalised coefficients."""

    def __init__(self, frames: int, z_dim: int):
        super().__init__()
        size = 3 * frames * BLOCK * BLOCK
        self.frames = frames
        self.mean = nn.Parameter(torch.zeros(size))
        self.components = nn.Parameter(torch.zeros(z_dim, size))  # orthonormal rows
        self.std = nn.Parameter(torch.ones(z_dim))
        self.change_weight = nn.Parameter(torch.tensor(CHANGE_WEIGHT))

    def encode(self, video: Tensor) -> Tensor:
        """(b, 3, frames * t, 16 h, 16 w) in [-1, 1] -> (b, z_dim, t, h, w). Computed in float32."""
        blocks = to_blocks(video, self.frames).float() - self.mean.float()
        latents = blocks @ self._weigh(self.components.float(), self.change_weight.float()).T / self.std.float()
        return rearrange(latents, "b t h w c -> b c t h w").to(video.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """(b, z_dim, t, h, w) -> (b, 3, frames * t, 16 h, 16 w), not clamped. Computed in float32."""
        coefficients = rearrange(latents, "b c t h w -> b t h w c").float() * self.std.float()
        blocks = coefficients @ self._weigh(self.components.float(), 1 / self.change_weight.float()) + self.mean.float()
        return from_blocks(blocks, self.frames).to(latents.dtype)

    @torch.no_grad()
    def fit(self, blocks: Tensor, seed: int) -> None:
        """From float32 blocks (n, size)."""
        mean = blocks.mean(dim=0)
        weighed = self._weigh(blocks - mean, self.change_weight)
        z_dim = len(self.components)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _, _, basis = torch.svd_lowrank(weighed, q=z_dim + OVERSAMPLING, niter=6)
        components = basis[:, :z_dim].T
        # A component's sign is arbitrary. Its largest entry is made positive, so that equal data give equal files.
        largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        components = components * largest.sign()
        std = (weighed @ components.T).std(dim=0)
        self.mean.copy_(mean)
        self.components.copy_(components)
        # A component that the data hardly use holds rounding to 8 bits; it must not be blown up to unit variance.
        self.std.copy_(std.clamp(min=COLOUR_STEP))

    def _weigh(self, blocks: Tensor, weight: Tensor) -> Tensor:
        """Blocks (n, size) with each pixel's deviation from its mean over the block's frames times `weight`.

        A symmetric linear map whose inverse is that of `1 / weight`; the identity on blocks of one frame.
        """
        pixels = rearrange(blocks, "n (c k s) -> n c k s", c=3, k=self.frames)
        still = pixels.mean(dim=2, keepdim=True)
        return rearrange(still + weight * (pixels - still), "n c k s -> n (c k s)")


class CausalBlockPCA(nn.Module):
    """The autoencoder inside `LinearVideoVAE`: latent 0 is frame 0, latent t is frames 4t-3 .. 4t.

    The first frame is encoded by itself, so that its latent is the same, bit for bit, with and without the rest.
    """

    def __init__(self, z_dim: int):
        super().__init__()
        self.z_dim = z_dim
        self.first = BlockPCA(1, z_dim)
        self.rest = BlockPCA(BLOCK_FRAMES, z_dim)

    def encode(self, video: Tensor) -> Tensor:
        """Frames (b, 3, 1 + 4k, 16 h, 16 w) in [-1, 1] -> latents (b, z_dim, 1 + k, h, w)."""
        frames, height, width = video.shape[2:]
        if (frames - 1) % BLOCK_FRAMES or height % BLOCK or width % BLOCK:
            raise ValueError(
                f"the tiny VAE encodes 1 + {BLOCK_FRAMES}k frames with sides that are multiples of {BLOCK} pixels; "
                f"it was given {frames} frames of {height}x{width}"
            )
        return torch.cat([self.first.encode(video[:, :, :1]), self.rest.encode(video[:, :, 1:])], dim=2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, z_dim, 1 + k, h, w) -> frames (b, 3, 1 + 4k, 16 h, 16 w), not clamped."""
        return torch.cat([self.first.decode(latents[:, :, :1]), self.rest.decode(latents[:, :, 1:])], dim=2)


class LinearVideoVAE(WanVideoVAE):
    """The linear autoencoder behind the library's VAE interface, which it inherits.

    `encode(videos, device, tiled=...)`: (3, 1 + 4k, 16 h, 16 w) each, in [-1, 1] -> (b, 48, 1 + k, h, w), about unit
    variance per channel. `decode(latents, device, tiled=...)` is the way back, clamped to [-1, 1]. Blocks do not
    overlap, so tiles would change nothing: `tiled` and its sizes are accepted and the clip goes through in one piece.
    """

    def __init__(self, z_dim: int = Z_DIM):
        super(WanVideoVAE, self).__init__()  # past the library's constructor, which builds its convolutions
        self.model = CausalBlockPCA(z_dim).eval().requires_grad_(False)
        self.upsampling_factor = BLOCK
        self.z_dim = z_dim

    def single_encode(self, video: Tensor, device: torch.device | str) -> Tensor:
        return self.model.encode(video.to(device))

    def single_decode(self, hidden_state: Tensor, device: torch.device | str) -> Tensor:
        return self.model.decode(hidden_state.to(device)).clamp_(-1, 1)

    def tiled_encode(self, video: Tensor, device: torch.device | str, tile_size: object, tile_stride: object) -> Tensor:
        return self.single_encode(video, device)

    def tiled_decode(
        self, hidden_states: Tensor, device: torch.device | str, tile_size: object, tile_stride: object
    ) -> Tensor:
        return self.single_decode(hidden_states, device)


class TinyWanVideoVAE38(WanVideoVAE38):
    """WAN2.2's real convolutional VAE at any width, with the interface of the library's `WanVideoVAE38`.

    `WanVideoVAE38` lets `dim` (encoder width, 160 in the release) be chosen but not `dec_dim` (decoder width, 256).
    Every width from 1 works. The release's latent statistics belong to its weights, so they are not applied here.
    """

    def __init__(self, dim: int = 16, dec_dim: int = 16, z_dim: int = Z_DIM):
        super(WanVideoVAE, self).__init__()  # past the constructor that fixes the decoder's width
        self.mean = torch.zeros(z_dim)
        self.std = torch.ones(z_dim)
        self.scale = [self.mean, 1.0 / self.std]
        self.model = VideoVAE38_(dim=dim, z_dim=z_dim, dec_dim=dec_dim).eval().requires_grad_(False)
        self.upsampling_factor = BLOCK
        self.z_dim = z_dim


def to_blocks(video: Tensor, frames: int) -> Tensor:
    """(b, 3, frames * t, 16 h, 16 w) -> (b, t, h, w, 3 * frames * 16 * 16)."""
    return rearrange(video, "b c (t k) (h p) (w q) -> b t h w (c k p q)", k=frames, p=BLOCK, q=BLOCK)


def from_blocks(blocks: Tensor, frames: int) -> Tensor:
    """The inverse of `to_blocks`."""
    return rearrange(blocks, "b t h w (c k p q) -> b c (t k) (h p) (w q)", k=frames, p=BLOCK, q=BLOCK, c=3)


def fit_linear_vae(windows: Iterable[Tensor], blocks_per_window: int = 64, seed: int = 0) -> LinearVideoVAE:
    """Fit the components on blocks drawn from `windows`, each four frames in a row: uint8 (4, H, W, 3), sides >= 16.

    Raises:
        ValueError: there are too few blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for window in windows:
        blocks = _window_blocks(window, generator)
        drawn.append(blocks[torch.randperm(len(blocks), generator=generator)[:blocks_per_window]])
    blocks = torch.cat(drawn)
    if len(blocks) <= Z_DIM + OVERSAMPLING:
        raise ValueError(f"{len(blocks)} RGB blocks are too few to fit {Z_DIM} components: give more or larger frames")
    vae = LinearVideoVAE()
    vae.model.rest.fit(blocks, seed)
    vae.model.first.fit(rearrange(blocks, "n (c k s) -> n k (c s)", c=3, k=BLOCK_FRAMES)[:, 0], seed)
    return vae


def _window_blocks(window: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (4, H, W, 3) -> float32 blocks (n, 3 * 4 * 16 * 16) in [-1, 1], on a grid with a random phase."""
    _, height, width, _ = window.shape
    top, left = (int(torch.randint(side % BLOCK + 1, (), generator=generator)) for side in (height, width))
    height, width = (side // BLOCK * BLOCK for side in (height, width))
    frames = window[:, top : top + height, left : left + width].float() * (2 / 255) - 1
    return to_blocks(rearrange(frames, "k y x c -> 1 c k y x"), BLOCK_FRAMES).flatten(0, 3)
