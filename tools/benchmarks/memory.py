"""Peak memory of a training step, counted on tensors without data: which settings fit which GPU, without having one.

What is counted is every tensor that is alive at the same time: weights, gradients, AdamW's moments, what autograd
keeps, what an operation makes. What a GPU needs besides is not: its context, the libraries' workspaces, gaps.
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from motion_depth.lora import add_lora
from motion_depth.losses import LossScales, Targets, flow_matching_loss, head_losses
from motion_depth.run import build_optimizer
from motion_depth.wan import TEXT_TOKENS, MotionDepthModel, dit_forward
from tools.benchmarks.models import Preset, build_heads, build_parts
from tools.benchmarks.stock import LORA_TARGETS

# stage, clips of a batch, gradient checkpointing
SETTINGS = (
    (1, 1, "none"), (1, 4, "none"), (2, 1, "every"), (2, 2, "every"), (2, 4, "every"), (2, 1, "alternate"),
    (2, 1, "none"), (2, 2, "none"),
)  # fmt: skip


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that operations make, for as long as somebody holds them.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) in self._alive:
            return
        self._alive[key] = size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._alive.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.watch, result)
        return result


def count_step(preset: Preset, stage: int, clips: int, checkpointing: str, rank: int) -> int:
    """Peak bytes of a step when the optimizer has its moments; the DiT in bfloat16, what is trained in float32."""
    dit = build_parts(preset, "meta", torch.bfloat16, ("dit",))["dit"]
    heads = build_heads(preset).to("meta")
    if stage == 2:
        add_lora(dit, rank, LORA_TARGETS.split(","))
    model = MotionDepthModel(dit, heads, stage == 2, checkpointing)
    f, h, w = preset.grid
    maps = clips, preset.num_frames, preset.height, preset.width
    with FakeTensorMode():
        _materialize(model)
        latents, noise = (torch.randn(clips, dit.in_dim, f, 2 * h, 2 * w, dtype=torch.bfloat16) for _ in range(2))
        context = torch.randn(clips, TEXT_TOKENS, preset.dit["text_dim"], dtype=torch.bfloat16)
        valid = torch.ones(maps, dtype=torch.bool)
        targets = Targets(torch.randn(*maps[:2], 2, *maps[2:]), valid, torch.rand(maps), valid.clone())
        optimizer = build_optimizer(model, 1e-4, 1e-4, 0.01)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                graph = contextlib.nullcontext() if stage == 2 else torch.no_grad()
                with graph, torch.autocast("cpu", enabled=False):
                    velocity, features = dit_forward(
                        dit, latents, torch.zeros(clips), context, heads.config.taps, stage == 2, checkpointing
                    )
                losses = head_losses(heads(features), targets, LossScales(), True)
                total = losses["motion_loss"] + losses["depth_loss"]
                if stage == 2:
                    total = total + flow_matching_loss(velocity, latents, noise, torch.ones(clips))
            total.mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        with LiveBytes() as live:
            for tensor in (*model.parameters(), latents, noise, context, *vars(targets).values()):
                live.watch(tensor)
            step()
            live.peak = live.now
            step()
            return live.peak


def _materialize(model: MotionDepthModel) -> None:
    """Tensors without data that say they are on the CPU, in place of those on "meta", which autocast does not know."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
    model.dit.freqs = tuple(torch.empty(each.shape, dtype=each.dtype, device="cpu") for each in model.dit.freqs)


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
        shown = checkpointing if stage == 2 else "-"
        lines.append(f"| {stage} | {clips} | {shown} | {counted[0]:.1f} | {counted[1]:.1f} |")
    return "\n".join(lines)
