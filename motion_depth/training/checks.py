"""What settings alone tell: refused before anything is read or loaded."""

from __future__ import annotations

import torch

from motion_depth.clips.noise import NoiseMixture
from motion_depth.settings import RANGES, Settings

OF_HEADS = ("head", "head_size", "head_taps", "head_upsampling", "head_latent_skip", "loss_frames")


def check_settings(settings: Settings) -> None:
    """Refuses what cannot work, before anything is read or loaded. Raises ValueError."""
    model, loss = settings.model, settings.loss
    if sum(each is not None for each in model.weights) != 1:
        raise ValueError("give one of --model_base_path, --model_paths, --model_id_with_origin_paths")
    values = settings.values()
    for name, (lowest, highest) in RANGES.items():
        if not lowest <= values[name] <= highest:
            raise ValueError(f"--{name} {values[name]}: expected {lowest:,} to {highest:,}")
    if not any(loss.weights.values()) and not settings.with_flow:
        names = ", ".join(f"--{name}_loss_weight" for name in (*loss.weights, "flow"))
        raise ValueError(f"{names}: all are 0, nothing trains")
    check_tuning(settings)
    NoiseMixture.parse(settings.mixture)
    if settings.data.cache_only and settings.data.cache_path is None:
        raise ValueError("--cache_only needs --cache_path, the folder to fill")
    if loss.loss_frames > settings.clip.num_frames:
        raise ValueError(f"--loss_frames {loss.loss_frames}: expected 0 (all) to {settings.clip.num_frames}")
    if settings.optim.dtype == torch.bfloat16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ValueError("--mixed_precision bf16: this GPU has no bfloat16; use --mixed_precision no")


def check_tuning(settings: Settings) -> None:
    """What trains, and what it is made from. Raises ValueError for what does not go together."""
    model, weights = settings.model, settings.loss.weights
    if model.tune == "full" and settings.stage == 1:
        raise ValueError("--tune full: stage 1 keeps the DiT frozen; use --stage 2, or leave --tune out")
    if not settings.with_heads:
        names, values = " and ".join(f"--{name}_loss_weight" for name in weights), settings.values()
        if given := [name for name in OF_HEADS if values[name] not in (None, 0)]:
            raise ValueError(f"--{given[0]} {values[given[0]]}: there are no heads, since {names} are 0; leave it out")
    elif settings.stage == 2 and model.tune == "lora" and model.heads_checkpoint is None:
        raise ValueError(
            "--heads_checkpoint: stage 2 starts from stage 1's heads; give the final/ folder of a stage-1 run"
        )
