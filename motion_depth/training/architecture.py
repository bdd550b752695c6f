"""What a run trains: the heads and the LoRA that its settings, or the checkpoint that it starts from, ask for."""

from __future__ import annotations

from typing import NamedTuple

import torch

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.models import LoraShape, read_head_config
from motion_depth.model.backbone import Backbone
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, parse_taps, tap_blocks
from motion_depth.model.lora import add_lora, check_lora_targets
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.readouts.statistics import neutral
from motion_depth.settings import ModelSettings, Settings


class Architecture(NamedTuple):
    """Of the heads, and of stage 2's LoRA (None in stage 1)."""

    heads: HeadConfig
    lora: LoraShape | None


def choose_architecture(settings: Settings, backbone: Backbone, checkpoint: Checkpoint | None) -> Architecture:
    """Heads and LoRA for a DiT of which only names and shapes are read.

    Args:
        checkpoint: the --heads_checkpoint, if there is one.

    Raises:
        ValueError: weights, flags and checkpoint do not fit each other.
    """
    heads = choose_heads(settings.model, backbone, checkpoint)
    if settings.stage == 1:
        return Architecture(heads, None)
    targets = tuple(settings.model.lora_target_modules.split(","))
    check_lora_targets(backbone.linear_layers(), targets)
    last_block = None if settings.loss.flow_loss_weight else max(heads.taps)  # behind it nothing but that loss trains
    return Architecture(heads, LoraShape(settings.model.lora_rank, targets, last_block))


def choose_heads(model: ModelSettings, backbone: Backbone, checkpoint: Checkpoint | None) -> HeadConfig:
    """The heads of the checkpoint, or those that the --head flags ask for; both at once must agree."""
    dim, blocks = backbone.dim, backbone.num_blocks
    given = {"kind": model.head, "upsampling": model.head_upsampling, **HEAD_SIZES.get(model.head_size, {})}
    if model.head_latent_skip is not None:
        given["latent_skip"] = bool(model.head_latent_skip)
    if model.head_taps is not None:
        given["taps"] = parse_taps(model.head_taps, blocks)
    given = {name: value for name, value in given.items() if value is not None}
    if checkpoint is None:
        fields = {"dit_dim": dim, "taps": tap_blocks(blocks), **HeadConfig.fields_of(backbone.layout)}
        return HeadConfig(**fields | given)
    config = read_head_config(checkpoint, dim, blocks)
    if differing := [name for name, value in given.items() if getattr(config, name) != value]:
        raise ValueError(
            f"--heads_checkpoint {model.heads_checkpoint}: its heads differ from the --head flags in "
            f"{', '.join(differing)}; leave those flags out, the checkpoint knows its heads"
        )
    return config


def planned_model(settings: Settings, backbone: Backbone, plan: Architecture) -> MotionDepthModel:
    """What a run trains, in its shapes and types and without data (device "meta")."""
    with torch.device("meta"):
        dit = backbone.empty_dit(settings.optim.dtype)
        heads = MotionDepthHeads(plan.heads, neutral())
        if plan.lora is not None:
            add_lora(dit, plan.lora.rank, plan.lora.target_modules, plan.lora.last_block)
    train_heads(heads, settings.loss.weights)
    return MotionDepthModel(dit, heads, settings.stage == 2, settings.optim.gradient_checkpointing)


def train_heads(heads: MotionDepthHeads, weights: dict[str, float]) -> None:
    """Freezes the heads whose loss has no weight."""
    for name, head in heads.items():
        head.requires_grad_(weights[name] > 0)
