"""Models to checkpoint tensors and back: what training saves is what stage 2 and every tool rebuild."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass

import torch
from diffsynth.models.wan_video_dit import WanModel
from torch import Tensor, nn

from motion_depth.checkpoint import Checkpoint
from motion_depth.heads import HeadConfig, MotionDepthHeads
from motion_depth.lora import add_lora, load_lora, lora_state_dict
from motion_depth.statistics import Statistics
from motion_depth.wan import MotionDepthModel

MOTION_FILE, DEPTH_FILE, LORA_FILE = "motion_head.safetensors", "depth_head.safetensors", "lora.safetensors"
STATISTICS_FILE = "statistics.safetensors"
FORMAT = 2
VERSIONS = ("diffsynth", "torch", "accelerate", "peft", "transformers", "safetensors")


@dataclass(frozen=True)
class LoraConfig:
    """Rank and target modules of the LoRA on the DiT, and the block behind which there is none (None: no such)."""

    rank: int
    target_modules: tuple[str, ...]
    last_block: int | None = None


def model_config(heads: HeadConfig, statistics: Statistics, lora: LoraConfig | None, run: dict) -> dict:
    """The config.json of a checkpoint: enough to rebuild the heads, and to know what they were trained on.

    Args:
        run: the training script's settings (sizes, conventions, data, seed), as plain values.
    """
    return {
        "format": FORMAT,
        "heads": heads.to_json(),
        "statistics": statistics.to_json(),
        "lora": None if lora is None else asdict(lora),
        "motion": "backward flow in pixels of the clip's resolution, x right, y down, to the previous sampled frame",
        "depth": "natural logarithm of metres along the ray (distance to camera)",
        "run": run,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def model_tensors(model: MotionDepthModel, statistics: Statistics) -> dict[str, dict[str, Tensor]]:
    """The tensor files of a checkpoint: heads, LoRA if the DiT has one, and the per-pixel mean depth."""
    files = {
        MOTION_FILE: model.heads.motion.state_dict(),
        DEPTH_FILE: model.heads.depth.state_dict(),
        STATISTICS_FILE: {"mean_depth": statistics.mean_depth},
    }
    if lora := lora_state_dict(model.dit):
        files[LORA_FILE] = lora
    return files


def read_statistics(checkpoint: Checkpoint) -> Statistics:
    """The training set's statistics as they were when the heads were made."""
    return Statistics.from_json(checkpoint.config["statistics"], checkpoint.tensors(STATISTICS_FILE)["mean_depth"])


def read_head_config(checkpoint: Checkpoint, dit_dim: int, num_blocks: int) -> HeadConfig:
    """The architecture of a checkpoint's heads.

    Raises:
        ValueError: the heads are of another format, or were trained on a DiT of another width or depth.
    """
    where = checkpoint.folder / "config.json"
    if checkpoint.config.get("format") != FORMAT:
        raise ValueError(f"{where}: format {checkpoint.config.get('format')}, expected {FORMAT}")
    try:
        config = HeadConfig(**checkpoint.config["heads"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: its `heads` do not describe heads ({error})") from None
    if config.dit_dim != dit_dim or max(config.taps) >= num_blocks:
        raise ValueError(
            f"{checkpoint.folder}: heads of a DiT of width {config.dit_dim} that read blocks {config.taps}; "
            f"this DiT has width {dit_dim} and {num_blocks} blocks"
        )
    return config


def build_heads(config: HeadConfig, statistics: Statistics) -> MotionDepthHeads:
    """New heads whose first prediction is the training set's median depth and no motion."""
    return MotionDepthHeads(config, statistics.scales.motion, statistics.log_depth, statistics.scales.log_depth)


def load_heads(checkpoint: Checkpoint, dit_dim: int, num_blocks: int) -> MotionDepthHeads:
    """Rebuilds a checkpoint's heads and loads their weights (float32, on the CPU).

    Raises:
        ValueError: the heads do not fit the DiT, or a file is not what config.json describes.
    """
    heads = build_heads(read_head_config(checkpoint, dit_dim, num_blocks), read_statistics(checkpoint))
    for name, head in ((MOTION_FILE, heads.motion), (DEPTH_FILE, heads.depth)):
        load_strict(head, checkpoint.tensors(name), str(checkpoint.folder / name))
    return heads


def load_strict(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """`load_state_dict`, with one line for an error."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{source}: does not fit config.json ({str(error).splitlines()[1].strip()})") from None


def read_lora_config(checkpoint: Checkpoint) -> LoraConfig | None:
    """LoRA of a checkpoint, None for stage 1."""
    lora = checkpoint.config["lora"]
    return None if lora is None else LoraConfig(**lora | {"target_modules": tuple(lora["target_modules"])})


def load_model(checkpoint: Checkpoint, dit: WanModel, device: torch.device | str) -> MotionDepthModel:
    """A trained model for inference: heads, and LoRA on the given DiT if the checkpoint has it.

    Raises:
        ValueError: the checkpoint does not fit the DiT.
    """
    heads = load_heads(checkpoint, dit.dim, len(dit.blocks))
    if lora := read_lora_config(checkpoint):
        dit = add_lora(dit, lora.rank, lora.target_modules, lora.last_block)
        load_lora(dit, checkpoint.tensors(LORA_FILE), str(checkpoint.folder / LORA_FILE), lora.last_block)
    return MotionDepthModel(dit, heads, train_dit=False).to(device).requires_grad_(False).eval()
