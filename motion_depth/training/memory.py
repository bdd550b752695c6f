"""Peak memory of a training step, counted on tensors without data: whether it fits a GPU, without having one.

What is counted is every tensor that is alive at the same time: weights, gradients, AdamW's moments, what autograd
keeps, what an operation makes. What a GPU needs besides is not: its context, the libraries' workspaces, gaps.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from motion_depth.latents import WAN22
from motion_depth.model.wan import MotionDepthModel, dit_forward
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import flow_matching_loss, head_losses, total_loss
from motion_depth.readouts.statistics import neutral
from motion_depth.readouts.targets import Target, Targets
from motion_depth.training.run import build_optimizer


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


def count_step(
    model: MotionDepthModel, clips: int, num_frames: int, height: int, width: int, decoded: int, with_flow: bool
) -> int:
    """Peak bytes of a step when the optimizer has its moments.

    Args:
        model: on "meta", with what is trained in float32; it is of no use afterwards. A DiT in bfloat16 computes in it,
            and the heads under autocast.
        clips: of a batch.
        num_frames, height, width: of a clip.
        decoded: frames of a clip that are compared.
        with_flow: whether the flow-matching loss is wanted.
    """
    dit, dtype = model.dit, model.dit.patch_embedding.weight.dtype
    shape = WAN22.latent_shape(num_frames, height, width)
    with FakeTensorMode():
        _materialize(model)
        latents, noise = (torch.randn(clips, *shape, dtype=dtype) for _ in range(2))
        context = torch.randn(clips, WAN22.text_tokens, dit.text_embedding[0].in_features, dtype=dtype)
        maps = clips, decoded, height, width
        targets = Targets(
            {
                name: Target(
                    torch.rand(*maps[:2], *readout.map_channels, *maps[2:]), torch.ones(maps, dtype=torch.bool)
                )
                for name, readout in READOUTS.items()
            }
        )
        frames = None if decoded == num_frames else torch.zeros(clips, decoded, dtype=torch.long)
        optimizer, scales = build_optimizer(model, 1e-4, 1e-4, 0.01), neutral().scales

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                graph = contextlib.nullcontext() if model.train_dit else torch.no_grad()
                with graph, torch.autocast("cpu", enabled=False):
                    velocity, features = dit_forward(
                        dit, latents, torch.zeros(clips), context, model.heads.config.taps, with_flow,
                        model.checkpointing,
                    )  # fmt: skip
                losses = head_losses(model.heads(features, frames), targets, scales)
                weights = dict.fromkeys(READOUTS, 1.0)
                if with_flow:
                    losses["flow_loss"] = flow_matching_loss(velocity, latents, noise, torch.ones(clips))
                    weights["flow"] = 1.0
                total = total_loss(losses, weights)
            total.mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        with LiveBytes() as live:
            for tensor in (*model.parameters(), latents, noise, context, *targets.tensors()):
                live.watch(tensor)
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            optimizer.step()  # makes the moments
            optimizer.zero_grad()
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
