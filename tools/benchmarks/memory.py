"""Which settings of a training step need how much memory, counted without a GPU: see motion_depth/memory.py."""

from __future__ import annotations

from dataclasses import replace

import torch

from motion_depth.model.lora import add_lora
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import tune_fully
from motion_depth.training import memory
from tools.benchmarks.models import Preset, build_heads, build_parts
from tools.benchmarks.stock import LORA_TARGETS

# stage (or stage 2 with all weights: "full"), clips of a batch, gradient checkpointing
SETTINGS = (
    (1, 1, "none"), (1, 4, "none"), (2, 1, "every"), (2, 2, "every"), (2, 4, "every"), (2, 1, "alternate"),
    (2, 1, "none"), (2, 2, "none"), ("full", 1, "every"), ("full", 4, "every"),
)  # fmt: skip


def count_step(preset: Preset, stage: int | str, clips: int, checkpointing: str, rank: int) -> int:
    """Peak bytes of a step when the optimizer has its moments; the DiT in bfloat16, what is trained in float32."""
    dit = build_parts(preset, "meta", torch.bfloat16, ("dit",))["dit"]
    if stage == 2:
        add_lora(dit, rank, LORA_TARGETS.split(","))
    if stage == "full":
        tune_fully(dit, torch.bfloat16)
    heads = None if stage == "full" else build_heads(preset).to("meta")
    model = MotionDepthModel(dit, heads, stage != 1, checkpointing)
    size = preset.num_frames, preset.height, preset.width
    return memory.count_step(model, clips, *size, decoded=preset.num_frames, with_flow=stage != 1)


def memory_table(preset: Preset, rank: int) -> str:
    """SETTINGS and their peaks as markdown; the longer clip has 81 frames."""
    longer = replace(preset, num_frames=81)
    size = f"{preset.height} x {preset.width}"
    lines = [
        f"| stage | clips | checkpointing | GiB, {size} x {preset.num_frames} | GiB, {size} x 81 |",
        "| --- " * 5 + "|",
    ]
    for stage, clips, checkpointing in SETTINGS:
        counted = [count_step(each, stage, clips, checkpointing, rank) / 2**30 for each in (preset, longer)]
        shown = "-" if stage == 1 else checkpointing
        lines.append(f"| {stage} | {clips} | {shown} | {counted[0]:.1f} | {counted[1]:.1f} |")
    return "\n".join(lines)
