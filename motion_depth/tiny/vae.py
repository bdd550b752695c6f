"""The small model's autoencoders, behind the library's VAE interface.

`SmallVideoVAE` has WAN2.2's layout: 16 x 16 pixels, 1 + 4k frames, 48 channels. Its encoder is a linear code of blocks
(block_code.py): a latent is of its own frames alone (latent 0: frame 0; latent t: frames 4t-3 .. 4t), so it is causal,
and of a scene whose windows overlap every frame is looked at once (`encode_windows`). Its decoder is the code's way
back and what convolutions add to it (networks.py), which overlap blocks and look back in time, never ahead: the frames
of a prefix of latents are the prefix of the frames. `fit_vae` sets the code in seconds, which alone is a sound
autoencoder; `tools/demo/train_vae.py` trains the decoder.

An encoder with convolutions, trained along, was tried: a DiT forecast its latents worse after as many clips, seen in
pixels, and what the reconstruction gained by it the decoder gains alone when it is trained for longer.

`TinyWanVideoVAE38` is WAN2.2's own convolutional VAE at small width.

Axes: b clip, c channel, t latent step or frame, h and w rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from diffsynth.models.wan_video_vae import VideoVAE38_, WanVideoVAE, WanVideoVAE38
from einops import rearrange
from torch import Tensor, nn

from motion_depth.files.atomic import expect_file, write_whole
from motion_depth.tiny.block_code import BLOCK, BLOCK_FRAMES, CHANNELS, BlockCode, draw_blocks
from motion_depth.tiny.networks import ConvolutionalDecoder

DECODER, DEPTHS = (192, 112, 64), (3, 4, 2)  # widths and residual blocks at strides 16, 8 and 4


class CausalAutoencoder(nn.Module):
    """The autoencoder inside `SmallVideoVAE`. Pixels are in [-1, 1]; latents have mean 0 and variance 1 per channel.

    Args:
        decoder: widths of the `ConvolutionalDecoder`; none: the linear way back alone.
        depths: residual blocks of the decoder.

    Raises:
        ValueError: there are not three widths and three depths.
    """

    def __init__(self, z_dim: int, decoder: Sequence[int], depths: Sequence[int]):
        super().__init__()
        if len(decoder) not in (0, 3):
            raise ValueError(f"decoder {list(decoder)}: expected three widths, or none for the linear code alone")
        if decoder and len(depths) != 3:
            raise ValueError(f"depths {list(depths)}: expected three numbers of residual blocks")
        self.z_dim = z_dim
        self.first_code, self.rest_code = BlockCode(1, z_dim), BlockCode(BLOCK_FRAMES, z_dim)
        self.decoder = ConvolutionalDecoder(decoder, depths, z_dim) if decoder else None
        # Of the codes: latent 0's, then those of all others.
        self.register_buffer("mean", torch.zeros(2, z_dim))
        self.register_buffer("std", torch.ones(2, z_dim))

    def encode(self, video: Tensor) -> Tensor:
        """Frames (b, 3, 1 + 4k, 16 h, 16 w) in [-1, 1] -> latents (b, z_dim, 1 + k, h, w).

        Raises:
            ValueError: another number of frames, or of pixels.
        """
        frames, height, width = video.shape[2:]
        if (frames - 1) % BLOCK_FRAMES or height % BLOCK or width % BLOCK:
            raise ValueError(
                f"the small VAE encodes 1 + {BLOCK_FRAMES}k frames with sides that are multiples of {BLOCK} pixels; "
                f"it was given {frames} frames of {height}x{width}"
            )
        codes = torch.cat([self.first_code.encode(video[:, :, :1]), self.rest_code.encode(video[:, :, 1:])], dim=2)
        mean, std = self._statistics(codes.shape[2])
        return ((codes - mean) / std).to(video.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, z_dim, 1 + k, h, w) -> frames (b, 3, 1 + 4k, 16 h, 16 w), not clamped."""
        mean, std = self._statistics(latents.shape[2])
        codes = latents.float() * std + mean
        video = torch.cat([self.first_code.decode(codes[:, :, :1]), self.rest_code.decode(codes[:, :, 1:])], dim=2)
        return (video if self.decoder is None else video + self.decoder(latents).float()).to(latents.dtype)

    def encode_windows(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """All latents that any window of consecutive frames can have; every frame is looked at once.

        Args:
            video: (1, 3, t, 16 h, 16 w), any number of frames above 4.

        Returns:
            first (z_dim, t, h, w), by the window's first frame, and rest (z_dim, t - 4, h, w), of which number i is of
            frames i + 1 .. i + 4. The window of 1 + 4k frames from frame s is first[s], rest[s], rest[s + 4], ...
        """
        four = video[:, :, 1:].unfold(2, BLOCK_FRAMES, 1)  # (1, 3, t - 4, 16 h, 16 w, 4)
        first = self.first_code.encode(video)
        rest = self.rest_code.encode(rearrange(four, "b c t h w k -> b c (t k) h w"))
        mean, std = self._statistics(2)
        first, rest = (first - mean[:, :, :1]) / std[:, :, :1], (rest - mean[:, :, 1:]) / std[:, :, 1:]
        return first[0].to(video.dtype), rest[0].to(video.dtype)

    def _statistics(self, steps: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the codes, (1, z_dim, steps, 1, 1) each, float32."""
        rows = (torch.cat([each[:1], each[1:].expand(steps - 1, -1)]).float() for each in (self.mean, self.std))
        mean, std = (rearrange(each, "t c -> 1 c t 1 1") for each in rows)
        return mean, std


class SmallVideoVAE(WanVideoVAE):
    """The small autoencoder behind the library's VAE interface, which it inherits.

    `encode(videos, device, tiled=...)`: (3, 1 + 4k, 16 h, 16 w) each, in [-1, 1] -> (b, 48, 1 + k, h, w).
    `decode(latents, device, tiled=...)` is the way back, clamped to [-1, 1]. A clip goes through in one piece: `tiled`
    and its sizes are accepted and change nothing. Arguments: see `CausalAutoencoder`.
    """

    def __init__(
        self,
        z_dim: int = CHANNELS,
        decoder: Sequence[int] = DECODER,
        depths: Sequence[int] = DEPTHS,
    ):
        super(WanVideoVAE, self).__init__()  # past the library's constructor, which builds its convolutions
        self.model = CausalAutoencoder(z_dim, decoder, depths).eval().requires_grad_(False)
        self.upsampling_factor = BLOCK
        self.z_dim = z_dim
        self.arguments: dict[str, object] = {"z_dim": z_dim, "decoder": list(decoder), "depths": list(depths)}

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

    def __init__(self, dim: int = 16, dec_dim: int = 16, z_dim: int = CHANNELS):
        super(WanVideoVAE, self).__init__()  # past the constructor that fixes the decoder's width
        self.mean = torch.zeros(z_dim)
        self.std = torch.ones(z_dim)
        self.scale = [self.mean, 1.0 / self.std]
        self.model = VideoVAE38_(dim=dim, z_dim=z_dim, dec_dim=dec_dim).eval().requires_grad_(False)
        self.upsampling_factor = BLOCK
        self.z_dim = z_dim


def fit_vae(
    windows: Iterable[Tensor],
    blocks_per_window: int = 64,
    seed: int = 0,
    decoder: Sequence[int] = (),
    depths: Sequence[int] = DEPTHS,
) -> SmallVideoVAE:
    """A VAE whose linear code is fitted to blocks drawn from `windows`; its network, if it has one, adds nothing yet.

    Args:
        windows: each four frames in a row: uint8 (4, H, W, 3), sides >= 16.
        seed: of the blocks, the decomposition and the network's weights.
        decoder, depths: see `CausalAutoencoder`.

    Raises:
        ValueError: there are too few blocks.
    """
    blocks = draw_blocks(windows, blocks_per_window, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = SmallVideoVAE(decoder=decoder, depths=depths)
    vae.model.rest_code.fit(blocks, seed)
    vae.model.first_code.fit(rearrange(blocks, "n (c k s) -> n k (c s)", c=3, k=BLOCK_FRAMES)[:, 0], seed)
    return vae


def stored_tensors(vae: SmallVideoVAE) -> dict[str, Tensor]:
    """Its state on the CPU as files hold it: the network in bfloat16, the linear code in float32."""
    types = {name: torch.bfloat16 if name.startswith("model.decoder") else torch.float32 for name in vae.state_dict()}
    return {name: tensor.to("cpu", types[name]).contiguous() for name, tensor in vae.state_dict().items()}


def save_vae(vae: SmallVideoVAE, path: Path) -> None:
    """Write a VAE (`stored_tensors`) with its arguments, whole or not at all. Raises OSError."""
    write_whole(path, safetensors.torch.save(stored_tensors(vae), {"arguments": json.dumps(vae.arguments)}))


def load_vae(path: Path) -> SmallVideoVAE:
    """What `save_vae` wrote, in float32. ValueError that names the file if it holds something else."""
    try:
        with safetensors.safe_open(expect_file(path), framework="pt") as file:
            vae = SmallVideoVAE(**json.loads(file.metadata()["arguments"]))
            vae.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a small VAE as tools/demo/train_vae.py writes it ({reason})") from None
    return vae
