"""Models to the tensors of a checkpoint and back: what training saves is what stage 2 and every tool rebuild."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.schema import DIT_FILE, FORMAT, LORA_FILE, STATISTICS_FILE, head_file
from motion_depth.model.backbone import Dit
from motion_depth.model.heads import HeadConfig, MotionDepthHeads
from motion_depth.model.lora import add_lora, load_lora, lora_state_dict
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.sharding import gather
from motion_depth.model.tuning import SAVED, is_tuned, load_dit
from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Statistics

VERSIONS = ("diffsynth", "torch", "accelerate", "peft", "transformers", "safetensors")


@dataclass(frozen=True)
class LoraShape:
    """Rank and target modules of the LoRA on the DiT, and the block behind which there is none (None: no such)."""

    rank: int
    target_modules: tuple[str, ...]
    last_block: int | None = None


def model_config(heads: HeadConfig | None, statistics: Statistics, lora: LoraShape | None, run: dict) -> dict:
    """The config.json of a checkpoint: enough to rebuild the heads, and to know what they were trained on.

    Args:
        heads: None where there are none, and so no statistics.
        run: the training script's settings (sizes, conventions, data, seed), as plain values.
    """
    return {
        "format": FORMAT,
        "heads": heads and heads.to_json(),
        "statistics": heads and statistics.to_json(),
        "lora": None if lora is None else asdict(lora),
        **{name: readout.meaning for name, readout in READOUTS.items()},
        "run": run,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def model_tensors(model: MotionDepthModel, statistics: Statistics, keep: bool = True) -> dict[str, dict[str, Tensor]]:
    """The tensor files of a checkpoint: a file for each head, the statistics' maps, and what of the DiT was trained.

    Collective. What is already on the CPU is not copied.

    Args:
        keep: whether this process wants the tensors.
    """
    files = {}
    if model.heads:
        files |= {head_file(name): gather(head.state_dict(), keep) for name, head in model.heads.items()}
        files[STATISTICS_FILE] = statistics.maps
    if lora := lora_state_dict(model.dit):
        files[LORA_FILE] = lora
    if is_tuned(model.dit):
        files[DIT_FILE] = gather(model.dit.state_dict(), keep, SAVED)
    return files


def has_heads(checkpoint: Checkpoint) -> bool:
    return checkpoint.config["heads"] is not None


def read_statistics(checkpoint: Checkpoint) -> Statistics:
    """The training set's statistics as they were when the heads were made. Raises ValueError if a map is none."""
    maps, path = checkpoint.tensors(STATISTICS_FILE), checkpoint.folder / STATISTICS_FILE
    for name in (name for readout in READOUTS.values() for name in readout.maps):
        if name not in maps:
            raise ValueError(f"{path}: {name} is missing")
        if maps[name].dim() != 2 or not maps[name].numel() or not maps[name].isfinite().all():
            raise ValueError(
                f"{path}: {name}: found shape {tuple(maps[name].shape)}, expected (h, w) of finite numbers"
            )
    return Statistics.from_json(checkpoint.config["statistics"], maps)


def read_head_config(checkpoint: Checkpoint, dit_dim: int, num_blocks: int) -> HeadConfig:
    """The architecture of a checkpoint's heads.

    Raises:
        ValueError: there are none, or they were trained on a DiT of another width or depth.
    """
    if not has_heads(checkpoint):
        raise ValueError(f"{checkpoint.folder}: has no heads, it was trained without; give a checkpoint that has some")
    config = HeadConfig(**checkpoint.config["heads"])
    if config.dit_dim != dit_dim or max(config.taps) >= num_blocks:
        raise ValueError(
            f"{checkpoint.folder}: heads of a DiT of width {config.dit_dim} that read blocks {config.taps}; "
            f"this DiT has width {dit_dim} and {num_blocks} blocks"
        )
    return config


def load_heads(checkpoint: Checkpoint, dit_dim: int, num_blocks: int) -> MotionDepthHeads:
    """Rebuilds a checkpoint's heads and loads their weights (float32, on the CPU).

    Raises:
        ValueError: the heads do not fit the DiT, or a file is not what config.json describes.
    """
    config, statistics = read_head_config(checkpoint, dit_dim, num_blocks), read_statistics(checkpoint)
    with torch.device("meta"):  # nothing of a size that the files do not have is ever built
        planned = MotionDepthHeads(config, statistics)
    tensors = {name: checkpoint.tensors(head_file(name)) for name in planned}
    for name, head in planned.items():
        _require_shapes(head, tensors[name], checkpoint.folder / head_file(name))
    heads = MotionDepthHeads(config, statistics)
    for name, head in heads.items():
        head.load_state_dict(tensors[name])
    return heads


def _require_shapes(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Raises ValueError unless some tensors are a module's, by names and shapes, in float32."""
    own, theirs = (
        {name: tuple(value.shape) for name, value in each.items()} for each in (module.state_dict(), tensors)
    )
    if wrong := sorted(name for name in own | theirs if own.get(name) != theirs.get(name)):
        raise ValueError(
            f"{source}: does not fit config.json ({len(wrong)} tensors, the first is {wrong[0]}: found "
            f"{theirs.get(wrong[0], 'none')}, expected {own.get(wrong[0], 'none')})"
        )
    if wrong := [name for name, value in tensors.items() if value.dtype != torch.float32]:
        raise ValueError(f"{source}: {wrong[0]} is {tensors[wrong[0]].dtype}, expected torch.float32")


def read_lora_config(checkpoint: Checkpoint) -> LoraShape | None:
    """LoRA of a checkpoint, None for stage 1."""
    lora = checkpoint.config["lora"]
    return None if lora is None else LoraShape(**lora | {"target_modules": tuple(lora["target_modules"])})


def build_lora(dit: Dit, lora: LoraShape, checkpoint: Checkpoint | None) -> None:
    """Adds LoRA to train to a DiT, with a checkpoint's weights if it has some. Raises ValueError if they do not fit."""
    add_lora(dit, lora.rank, lora.target_modules, lora.last_block)
    if checkpoint is not None and (before := read_lora_config(checkpoint)):
        load_lora(dit, checkpoint.tensors(LORA_FILE), str(checkpoint.folder / LORA_FILE), before.last_block)


def load_tuned(dit: Dit, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's DiT in the place of a DiT's weights, if it has one. Raises ValueError if it is another."""
    if checkpoint.has(DIT_FILE):
        load_dit(dit, checkpoint.tensors(DIT_FILE), str(checkpoint.folder / DIT_FILE))


def read_lora(checkpoint: Checkpoint, dit: Dit) -> dict[str, Tensor]:
    """LoRA weights of a checkpoint that has some, after making sure that each layer of the DiT can take its own.

    Raises:
        ValueError: a layer is not there or of another size, or the rank is not config.json's.
    """
    source, rank = checkpoint.folder / LORA_FILE, checkpoint.config["lora"]["rank"]
    tensors, layers = checkpoint.tensors(LORA_FILE), dict(dit.named_modules())
    for name, value in tensors.items():
        layer, _, side = name.rpartition(".lora_")
        weight = getattr(layers.get(layer), "weight", None)
        sizes = None if weight is None else {"A.weight": (rank, weight.shape[1]), "B.weight": (weight.shape[0], rank)}
        if sizes is None or sizes.get(side) != tuple(value.shape):
            expected = "no such tensor" if sizes is None else sizes.get(side, "no such tensor")
            found = f"{name} of shape {tuple(value.shape)}"
            raise ValueError(f"{source}: {found} does not fit the DiT at rank {rank}, expected {expected}")
    if not tensors:
        raise ValueError(f"{source}: holds no tensor, config.json promises LoRA of rank {rank}")
    return tensors


def load_model(checkpoint: Checkpoint, dit: Dit, device: torch.device | str) -> MotionDepthModel:
    """A trained model for inference: its heads on the given DiT, with its LoRA, or its weights in the DiT's place.

    Raises:
        ValueError: the checkpoint does not fit the DiT.
    """
    heads = load_heads(checkpoint, dit.dim, len(dit.blocks)) if has_heads(checkpoint) else None
    load_tuned(dit, checkpoint)
    if lora := read_lora_config(checkpoint):
        tensors = read_lora(checkpoint, dit)
        dit = add_lora(dit, lora.rank, lora.target_modules, lora.last_block)
        load_lora(dit, tensors, str(checkpoint.folder / LORA_FILE), lora.last_block)
    return MotionDepthModel(dit, heads, train_dit=False).to(device).requires_grad_(False).eval()
