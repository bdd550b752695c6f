"""The part of a checkpoint that only resuming needs: optimizer, half-accumulated gradients and what belongs to them.

Everything becomes named tensors, so that it is stored as safetensors and nothing has to be unpickled. Random numbers
are not among it: sampling and noise are pure functions of the seed and the position (`noise.py`, `data.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed import all_gather_object, get_rank, get_world_size, is_initialized


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer, pending: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Optimizer state and, in the middle of an accumulation, every process's own gradients.

    Collective: every process has to call it. Names are `optimizer/<parameter>/<key>`, `gradient/<rank>/<parameter>` and
    `pending/<rank>/<name>`.

    Args:
        pending: what else this process has gathered for the update that it is in the middle of.
    """
    tensors = {}
    for name, parameter in named_trainable(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    gradients = {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in named_trainable(model).items()
        if parameter.grad is not None
    }
    mine = {f"gradient/{_rank()}/{name}": value for name, value in gradients.items()}
    mine |= {f"pending/{_rank()}/{name}": value.detach().cpu() for name, value in (pending or {}).items()}
    for found in _all_gather(mine):
        tensors.update(found)
    return tensors


def pending_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What this process gave `capture` as `pending`."""
    prefix = f"pending/{_rank()}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `capture` gave; parameters keep their place in the optimizer's groups.

    Raises:
        ValueError: the state is of another model.
    """
    rank, trainable = _rank(), named_trainable(model)
    named = {name.split("/")[1] for name in tensors if name.startswith("optimizer/")}
    named |= {name.split("/")[2] for name in tensors if name.startswith("gradient/")}
    if unknown := named - trainable.keys():
        raise ValueError(f"training state: no parameter is called {min(unknown)}; it was written by another model")
    packed = optimizer.state_dict()
    number = {
        parameter: i for i, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    for name, parameter in trainable.items():
        prefix = f"optimizer/{name}/"
        state = {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            packed["state"][number[parameter]] = state
        gradient = tensors.get(f"gradient/{rank}/{name}")
        parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
    optimizer.load_state_dict(packed)  # puts every tensor on the device that this kind of optimizer wants it on


def _rank() -> int:
    return get_rank() if is_initialized() else 0


def _all_gather(value: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    if not is_initialized():
        return [value]
    gathered: list = [None] * get_world_size()
    all_gather_object(gathered, value)
    return gathered
