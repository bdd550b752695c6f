"""Peak memory of a training step, counted on tensors without data: whether it fits a GPU, without having one.

What is counted is every tensor that is alive at the same time: weights, gradients, AdamW's moments, what autograd
keeps, what an operation makes. What a GPU needs besides is not: its context, the libraries' workspaces, gaps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import compute_type
from motion_depth.readouts import READOUTS
from motion_depth.readouts.losses import head_losses, total_loss
from motion_depth.readouts.statistics import neutral
from motion_depth.readouts.targets import Target, Targets
from motion_depth.training.optimizer import adamw


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

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> object:
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
    layout, dtype = model.dit.layout, compute_type(model.dit)
    shape = layout.latent_shape(num_frames, height, width)
    with FakeTensorMode():
        _materialize(model)
        latents, noise = (torch.randn(clips, *shape, dtype=dtype) for _ in range(2))
        context = torch.randn(clips, layout.text_tokens, model.dit.text_dim, dtype=dtype)
        maps = clips, decoded, height, width
        targets = Targets(
            {
                name: Target(
                    torch.rand(*maps[:2], *readout.map_channels, *maps[2:]), torch.ones(maps, dtype=torch.bool)
                )
                for name, readout in (READOUTS if model.heads else {}).items()
            }
        )
        frames = None if decoded == num_frames else torch.zeros(clips, decoded, dtype=torch.long)
        optimizer, scales = adamw(model, 1e-4, 1e-4, 0.01), neutral().scales

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                predictions = model(latents, latents[:, :, :1], context, noise, torch.zeros(clips), with_flow, frames)
                losses = predictions | (head_losses(predictions, targets, scales) if model.heads else {})
                total = total_loss(losses, dict.fromkeys([*targets, *(["flow"] if with_flow else [])], 1.0))
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
        tables = {name: value for name, value in vars(module).items() if isinstance(value, tuple)}  # of the rotation
        vars(module).update(tree_map_only(Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device="cpu"), tables))
