"""Dense readouts of a video DiT: block features in, one map per quantity at full resolution out.

Axes: b clip, f latent frame, t video frame (t = 4 (f - 1) + 1), h w a grid (the comment says which), c channel.
Strides are in pixels: DiT tokens 32, latents 16, decoder 8 and 4, output 1. All these are WAN's; those of another
backbone stand in HeadConfig, and the decoder's are then a half and a quarter of its latents'.

WAN's time layout: latent 0 holds frame 0, latent k holds frames 4k-3 .. 4k. Frame 4k-3 borders on the latent before,
so a readout of its motion needs both: the time expansion below sees latents k-1 and k (and k+1 through the mixer).

Sources: multi-level taps and fusion of DPT (Ranftl et al. 2021), adaptive modulation of DiT (Peebles and Xie 2023);
layers.py names those of its parts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motion_depth.latents import WAN22, LatentLayout
from motion_depth.model.backbone import DitFeatures
from motion_depth.model.layers import (
    COORDINATE_OCTAVES,
    FrameDecoder,
    ResidualConv,
    SpaceTimeBlock,
    TimeExpansion,
    coordinates,
    take_frames,
)
from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Statistics

TAP_FRACTIONS = (0.33, 0.5, 0.67, 0.83)
# Pixels of full-resolution output decoded at once. 2^21 is nine frames of 480 x 480: about 0.5 GiB of activations.
PIXELS_PER_CHUNK = 2**21


@dataclass(frozen=True)
class HeadConfig:
    """The architecture of the heads, the same for every quantity; written to a checkpoint's config.json.

    To rebuild heads takes the training set's statistics as well, and each quantity's own number of channels.

    Raises:
        ValueError: kind, upsampling or taps are none; the message names the flag. Sizes are checked by who reads them.
    """

    dit_dim: int
    taps: tuple[int, ...]  # indices of DiT blocks, ascending
    kind: str = "dense"  # "dense" or "linear"
    latent_channels: int = WAN22.channels
    latent_stride: int = WAN22.stride  # pixels, a multiple of 4
    patch: int = WAN22.patch  # latents along a side of a token
    frames_per_latent: int = WAN22.frames_per_latent
    width: int = 512  # token trunk
    decoder_widths: tuple[int, int, int] = (128, 96, 64)  # at strides 16, 8, 4
    mixer_blocks: int = 2
    latent_skip: bool = True
    upsampling: str = "convex"  # "convex" or "bilinear", from stride 4

    def __post_init__(self):
        object.__setattr__(self, "taps", tuple(self.taps))
        object.__setattr__(self, "decoder_widths", tuple(self.decoder_widths))
        if self.kind not in ("dense", "linear"):
            raise ValueError(f"--head {self.kind}: expected 'dense' or 'linear'")
        if self.upsampling not in ("convex", "bilinear"):
            raise ValueError(f"--head_upsampling {self.upsampling}: expected 'convex' or 'bilinear'")
        if self.latent_stride % 4:
            raise ValueError(f"heads for latents of {self.latent_stride} pixels: expected a multiple of 4")
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or self.taps[0] < 0:
            raise ValueError(
                f"--head_taps gives blocks {self.taps}: expected distinct block numbers in ascending order"
            )

    @staticmethod
    def fields_of(layout: LatentLayout) -> dict[str, int]:
        """The fields that a backbone's layout decides."""
        return {
            "latent_channels": layout.channels,
            "latent_stride": layout.stride,
            "patch": layout.patch,
            "frames_per_latent": layout.frames_per_latent,
        }

    def to_json(self) -> dict:
        return asdict(self)


# name -> fields of HeadConfig. "small" is sized for the demo model on a CPU, "full" for the 5B model.
HEAD_SIZES = {
    "small": {"width": 128, "decoder_widths": (48, 32, 16), "mixer_blocks": 2},
    "full": {"width": 512, "decoder_widths": (128, 96, 64), "mixer_blocks": 2},
}


def tap_blocks(num_blocks: int, fractions: tuple[float, ...] = TAP_FRACTIONS) -> tuple[int, ...]:
    """The DiT blocks whose outputs end at the given fractions of depth; 30 blocks give (9, 14, 19, 24) by default.

    Raises:
        ValueError: a fraction outside (0, 1], or two fractions that fall on one block.
    """
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"--head_taps {fractions}: expected fractions of the DiT's depth in (0, 1]")
    blocks = tuple(max(round(num_blocks * fraction) - 1, 0) for fraction in sorted(fractions))
    if len(set(blocks)) != len(blocks):
        raise ValueError(
            f"--head_taps {fractions}: two taps fall on one of the {num_blocks} blocks ({blocks}); use fewer"
        )
    return blocks


def parse_taps(text: str, num_blocks: int) -> tuple[int, ...]:
    """`tap_blocks` of fractions such as "0.33,0.5". Raises ValueError."""
    try:
        fractions = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--head_taps {text}: expected fractions of the DiT's depth such as 0.33,0.5") from None
    return tap_blocks(num_blocks, fractions)


class TapMix(nn.Module):
    """Several taps to one feature map: LayerNorm, modulation by the timestep embedding, projection, softmax mix."""

    def __init__(self, config: HeadConfig, modulation_rank: int = 64):
        super().__init__()
        dim, width = config.dit_dim, config.width
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulations = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(dim, modulation_rank), nn.Linear(modulation_rank, 2 * dim))
            for _ in config.taps
        )
        self.projections = nn.ModuleList(nn.Linear(dim, width) for _ in config.taps)
        self.mix_logits = nn.Parameter(torch.zeros(len(config.taps)))
        for modulation in self.modulations:  # starts as the identity
            nn.init.zeros_(modulation[-1].weight)
            nn.init.zeros_(modulation[-1].bias)

    def forward(self, features: DitFeatures) -> Tensor:
        """Returns (b, f, h, w, width) on the token grid."""
        f, h, w = features.grid
        weights = self.mix_logits.softmax(dim=0)
        mixed = 0.0
        parts = zip(weights, features.taps, self.modulations, self.projections, strict=True)
        for weight, tap, modulation, projection in parts:
            x = rearrange(tap, "b (f h w) c -> b f h w c", f=f, h=h, w=w)
            scale, shift = rearrange(modulation(features.time_embedding), "b f (two c) -> two b f 1 1 c", two=2)
            mixed = mixed + weight * projection(self.norm(x) * (1 + scale) + shift)
        return mixed


class DenseHead(nn.Module):
    """Taps, space-time mixer, latent skip, time expansion, frame decoder; see the module's docstring."""

    def __init__(self, config: HeadConfig, out_channels: int):
        super().__init__()
        c16 = config.decoder_widths[0]
        latent_channels = config.latent_channels if config.latent_skip else 0
        self.tap_mix = TapMix(config)
        self.place = nn.Linear(4 * COORDINATE_OCTAVES, config.width)
        self.mixer = nn.Sequential(*(SpaceTimeBlock(config.width) for _ in range(config.mixer_blocks)))
        self.to_16 = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.patch**2 * c16))
        self.latent_block = ResidualConv(c16, 3)
        self.expand_time = TimeExpansion(c16, config.frames_per_latent)
        self.decoder = FrameDecoder(
            config.decoder_widths, latent_channels, out_channels, config.latent_stride, config.upsampling == "convex"
        )
        if config.latent_skip:
            self.latent_patch = nn.Linear(config.patch**2 * latent_channels, config.width)
            self.latent_skip = nn.Conv3d(latent_channels, c16, (1, 3, 3), padding=(0, 1, 1))
            self.expand_latents = TimeExpansion(latent_channels, config.frames_per_latent)
        self.reads_latents = config.latent_skip
        self.patch, self.latent_stride = config.patch, config.latent_stride

    @property
    def out(self) -> nn.Conv2d:
        return self.decoder.out

    def forward(self, features: DitFeatures, frames: Tensor | None = None) -> Tensor:
        """Returns (b, t, out, 32h, 32w), float32; of given frames (b, n) only, (b, n, out, 32h, 32w)."""
        x = self.tap_mix(features) + self.place(coordinates(*features.grid[1:], like=features.latents))
        latents = features.latents.to(x.dtype)
        if self.reads_latents:
            patches = rearrange(latents, "b c f (h p) (w q) -> b f h w (p q c)", p=self.patch, q=self.patch)
            x = x + self.latent_patch(patches)
        x = self.mixer(x)
        x = rearrange(self.to_16(x), "b f h w (p q c) -> b c f (h p) (w q)", p=self.patch, q=self.patch)
        if self.reads_latents:
            x = x + self.latent_skip(latents)
        inputs = [self.expand_time(self.latent_block(x))]
        if self.reads_latents:
            inputs.append(self.expand_latents(latents))
        return self._decode([take_frames(rearrange(part, "b c t h w -> b t c h w"), frames) for part in inputs])

    def _decode(self, inputs: list[Tensor]) -> Tensor:
        """Inputs of the decoder, each (b, t, c, h, w), to (b, t, out, 16h, 16w), a few frames at a time."""
        b, _, _, h, w = inputs[0].shape
        per_chunk = max(1, PIXELS_PER_CHUNK // (h * w * self.latent_stride**2))
        chunks = [rearrange(part, "b t c h w -> (b t) c h w").split(per_chunk) for part in inputs]
        chunks = list(zip(*chunks, strict=True))
        if len(chunks) > 1 and torch.is_grad_enabled():
            decoded = [
                checkpoint(self.decoder, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
            ]
        else:
            decoded = [self.decoder(*chunk) for chunk in chunks]
        return rearrange(torch.cat(decoded), "(b t) c h w -> b t c h w", b=b)


class LinearHead(nn.Module):
    """The baseline: one linear layer per token, one value per latent cell and frame, bilinear to full resolution."""

    def __init__(self, config: HeadConfig, out_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(config.dit_dim, elementwise_affine=False)
        values = config.patch**2 * config.frames_per_latent * out_channels
        self.out = nn.Linear(len(config.taps) * config.dit_dim, values)
        self.patch, self.latent_stride = config.patch, config.latent_stride
        self.frames_per_latent = config.frames_per_latent

    def forward(self, features: DitFeatures, frames: Tensor | None = None) -> Tensor:
        """As `DenseHead.forward`. Of latent 0 only the last of its four frames is one."""
        f, h, w = features.grid
        x = torch.cat([self.norm(tap) for tap in features.taps], dim=-1)
        x = rearrange(
            self.out(x).float(),
            "b (f h w) (c s p q) -> b (f s) c (h p) (w q)",
            f=f,
            h=h,
            w=w,
            s=self.frames_per_latent,
            p=self.patch,
            q=self.patch,
        )[:, self.frames_per_latent - 1 :]
        x = take_frames(x, frames)
        b = x.shape[0]
        x = F.interpolate(
            rearrange(x, "b t c h w -> (b t) c h w"),
            scale_factor=self.latent_stride,
            mode="bilinear",
            align_corners=False,
        )
        return rearrange(x, "(b t) c h w -> b t c h w", b=b)


class MotionDepthHeads(nn.ModuleDict):
    """A head for each quantity of the table, by its name, each with a trunk of its own.

    Args:
        config: what to build.
        statistics: of the training set: what the heads say first, and what a raw output of 1 means.
    """

    def __init__(self, config: HeadConfig, statistics: Statistics):
        build = DenseHead if config.kind == "dense" else LinearHead
        super().__init__({name: build(config, readout.channels) for name, readout in READOUTS.items()})
        self.config, self.statistics = config, statistics
        for head in self.values():
            nn.init.zeros_(head.out.weight)
            nn.init.zeros_(head.out.bias)

    def forward(self, features: DitFeatures, frames: Tensor | None = None) -> dict[str, Tensor]:
        """Reads every quantity off one DiT forward.

        Args:
            frames: (b, n) indices of the frames that are wanted of each clip; None: all t. A training step may decode
                a few frames of many clips instead of all frames of a few.

        Returns:
            Float32 maps at full resolution, (b, t, ..., H, W), by the names that `Readout.decode` documents: `motion`,
            `log_depth`, `background_logit`.
        """
        return {
            name: values
            for key, head in self.items()
            for name, values in READOUTS[key].decode(head(features, frames), self.statistics).items()
        }


def example_features(
    config: HeadConfig, grid: tuple[int, int, int], batch: int = 1, device: str = "cpu"
) -> DitFeatures:
    """Random features of the right shapes, for counting operations ("meta") and for tests."""
    f, h, w = grid
    return DitFeatures(
        taps=[torch.randn(batch, f * h * w, config.dit_dim, device=device) for _ in config.taps],
        time_embedding=torch.randn(batch, f, config.dit_dim, device=device),
        latents=torch.randn(batch, config.latent_channels, f, config.patch * h, config.patch * w, device=device),
        grid=grid,
    )
