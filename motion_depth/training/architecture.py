"""What a run trains: the heads, and of the DiT what its settings, or the checkpoint that it starts from, ask for."""

from __future__ import annotations

from typing import NamedTuple

import torch

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.models import LoraShape, build_lora, has_heads, load_tuned, read_head_config
from motion_depth.checkpoints.schema import DIT_FILE, LORA_FILE
from motion_depth.model.backbone import Backbone, Dit
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, parse_taps, tap_blocks
from motion_depth.model.lora import check_lora_targets
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import tune_fully
from motion_depth.readouts.statistics import neutral
from motion_depth.settings import ModelSettings, Settings


class Architecture(NamedTuple):
    """Of what a run trains.

    Attributes:
        heads: None where none of them has a loss.
        lora: on the DiT; None in stage 1, and where all of its weights train.
        last_block: behind it nothing of the DiT trains; None: everything does, or nothing at all.
    """

    heads: HeadConfig | None
    lora: LoraShape | None
    last_block: int | None = None


def choose_architecture(settings: Settings, backbone: Backbone, checkpoint: Checkpoint | None) -> Architecture:
    """Heads and LoRA for a DiT of which only names and shapes are read.

    Args:
        checkpoint: the --heads_checkpoint, if there is one.

    Raises:
        ValueError: weights, flags and checkpoint do not fit each other.
    """
    if checkpoint is not None:
        check_start(settings, checkpoint)
    heads = choose_heads(settings.model, backbone, checkpoint) if settings.with_heads else None
    if settings.stage == 1:
        return Architecture(heads, None)
    last_block = None if settings.loss.flow_loss_weight else max(heads.taps)  # behind it nothing but that loss trains
    if settings.full:
        return Architecture(heads, None, last_block)
    targets = tuple(settings.model.lora_target_modules.split(","))
    check_lora_targets(backbone.linear_layers(), targets)
    return Architecture(heads, LoraShape(settings.model.lora_rank, targets, last_block), last_block)


def check_start(settings: Settings, checkpoint: Checkpoint) -> None:
    """Raises ValueError if a run would leave out what a --heads_checkpoint was trained for, or has no use for it."""
    given = f"--heads_checkpoint {checkpoint.folder}"
    if checkpoint.has(DIT_FILE) and not settings.full:
        raise ValueError(
            f"{given}: its heads read a DiT that was trained as a whole; go on with --stage 2 --tune full, or give "
            f"{checkpoint.folder / DIT_FILE} as the DiT in --model_paths and train new heads"
        )
    if checkpoint.has(LORA_FILE) and settings.full:
        raise ValueError(f"{given}: has LoRA, which --tune full would leave out; use --tune lora, or one without")
    if not settings.with_heads and not (checkpoint.has(DIT_FILE) or checkpoint.has(LORA_FILE)):
        raise ValueError(f"{given}: has heads only, and there are none here, since their losses have no weight")


def train_dit(dit: Dit, settings: Settings, plan: Architecture, checkpoint: Checkpoint | None) -> None:
    """Makes of a DiT what the plan says, with what a checkpoint has of it. Raises ValueError if it does not fit."""
    if plan.lora is not None:
        build_lora(dit, plan.lora, checkpoint)
    elif settings.full:
        if checkpoint is not None:
            load_tuned(dit, checkpoint)
        tune_fully(dit, settings.optim.dtype, plan.last_block)


def choose_heads(model: ModelSettings, backbone: Backbone, checkpoint: Checkpoint | None) -> HeadConfig:
    """The heads of the checkpoint, or those that the --head flags ask for; both at once must agree."""
    dim, blocks = backbone.dim, backbone.num_blocks
    given = {"kind": model.head, "upsampling": model.head_upsampling, **HEAD_SIZES.get(model.head_size, {})}
    if model.head_latent_skip is not None:
        given["latent_skip"] = bool(model.head_latent_skip)
    if model.head_taps is not None:
        given["taps"] = parse_taps(model.head_taps, blocks)
    given = {name: value for name, value in given.items() if value is not None}
    if checkpoint is None or not has_heads(checkpoint):
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
        heads = MotionDepthHeads(plan.heads, neutral()) if plan.heads else None
        train_dit(dit, settings, plan, None)
    train_heads(heads, settings.loss.weights)
    return MotionDepthModel(dit, heads, settings.stage == 2, settings.optim.gradient_checkpointing)


def train_heads(heads: MotionDepthHeads | None, weights: dict[str, float]) -> None:
    """Freezes the heads whose loss has no weight, if there are any."""
    for name, head in heads.items() if heads else ():
        head.requires_grad_(weights[name] > 0)
