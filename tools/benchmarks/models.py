"""Models with random weights in the exact shapes of WAN2.2-TI2V-5B, or small ones with the same shares of work.

Nothing is downloaded; the weights are drawn on the device they are used on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffsynth.configs import MODEL_CONFIGS
from diffsynth.diffusion import FlowMatchScheduler
from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer, WanTextEncoder
from diffsynth.models.wan_video_vae import WanVideoVAE38
from diffsynth.pipelines.wan_video import WanVideoPipeline
from torch import nn

from motion_depth.latents import WAN22
from motion_depth.model.backbone import new_tensors_in
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, tap_blocks
from motion_depth.model.motion_depth import MotionDepthModel, count_operations
from motion_depth.model.wan import WanDit
from motion_depth.readouts.statistics import neutral
from motion_depth.tiny.model import dit_arguments
from motion_depth.tiny.vae import TinyWanVideoVAE38

PARTS = ("dit", "text_encoder", "vae")
DIT_5B = next(
    entry["extra_kwargs"]
    for entry in MODEL_CONFIGS
    if entry["model_name"] == "wan_video_dit" and entry.get("extra_kwargs", {}).get("fuse_vae_embedding_in_latents")
)


@dataclass(frozen=True)
class Preset:
    """What is benchmarked.

    Attributes:
        dit, text_encoder: arguments of the library's classes. vae: of TinyWanVideoVAE38; None: WanVideoVAE38.
        heads: arguments of HeadConfig.
        height, width, num_frames: of the clips.
    """

    dit: dict[str, Any]
    text_encoder: dict[str, Any]
    vae: dict[str, Any] | None
    heads: dict[str, Any]
    height: int
    width: int
    num_frames: int


PRESETS = {
    "5b": Preset(DIT_5B, {}, None, HEAD_SIZES["full"], 480, 480, 49),
    # Widths chosen so that VAE, text encoder, heads and the blocks before the last tap cost about as many times the DiT
    # as they do in the 5B.
    "tiny": Preset(
        dit_arguments(dim=768, num_heads=16, num_layers=12, text_dim=256),
        {"vocab": 512, "dim": 256, "dim_attn": 256, "dim_ffn": 1792, "num_heads": 8, "num_layers": 2},
        {"dim": 38, "dec_dim": 16},
        {"width": 96, "decoder_widths": (22, 16, 12), "mixer_blocks": 1},
        96,
        96,
        17,
    ),
}


def resized(
    preset: Preset, layers: int | None, height: int | None, width: int | None, num_frames: int | None
) -> Preset:
    """The preset with fewer layers in DiT and text encoder, or another clip size, to try it on a small machine."""
    sizes = {"height": height, "width": width, "num_frames": num_frames}
    preset = replace(preset, **{name: value for name, value in sizes.items() if value is not None})
    if layers is None:
        return preset
    return replace(
        preset,
        dit=preset.dit | {"num_layers": layers},
        text_encoder=preset.text_encoder | {"num_layers": min(layers, preset.text_encoder.get("num_layers", layers))},
    )


def build_parts(
    preset: Preset, device: torch.device | str, dtype: torch.dtype, names: Sequence[str] = PARTS
) -> dict[str, nn.Module]:
    """Some of the DiT, text encoder and VAE, frozen, with random weights drawn on the device."""
    build = {
        "dit": lambda: WanDit(**preset.dit),
        "text_encoder": lambda: WanTextEncoder(**preset.text_encoder),
        "vae": lambda: WanVideoVAE38() if preset.vae is None else TinyWanVideoVAE38(**preset.vae),
    }
    torch.manual_seed(0)
    with new_tensors_in(dtype), torch.device(device):
        return {name: build[name]().eval().requires_grad_(False) for name in names}


def build_pipeline(
    parts: dict[str, nn.Module], tokenizer: Path, device: torch.device, dtype: torch.dtype
) -> WanVideoPipeline:
    """The library's pipeline around parts that are there already."""
    pipe = WanVideoPipeline(device=device, torch_dtype=dtype)
    for name, part in parts.items():
        setattr(pipe, name, part)
    pipe.tokenizer = HuggingfaceTokenizer(name=str(tokenizer), seq_len=WAN22.text_tokens, clean="whitespace")
    pipe.scheduler = FlowMatchScheduler("Wan")
    pipe.scheduler.set_timesteps(1000, training=True)
    return pipe


def build_heads(preset: Preset) -> MotionDepthHeads:
    """All heads in float32."""
    torch.manual_seed(1)
    blocks = preset.dit["num_layers"]
    taps = tap_blocks(blocks) if blocks >= 6 else (blocks - 1,)
    config = HeadConfig(preset.dit["dim"], taps, **preset.heads)
    return MotionDepthHeads(config, neutral())


def count_parts(preset: Preset) -> dict[str, int]:
    """Floating-point operations of one clip's forward: `dit` (whole), `dit_to_last_tap`, `heads`."""
    dit = build_parts(preset, "meta", torch.float32, ("dit",))["dit"]
    model = MotionDepthModel(dit, build_heads(preset).to("meta"), train_dit=False)
    counted = count_operations(model, preset.num_frames, preset.height, preset.width)
    share = (max(model.heads.config.taps) + 1) / preset.dit["num_layers"]
    return counted | {"dit_to_last_tap": round(counted["dit"] * share)}
