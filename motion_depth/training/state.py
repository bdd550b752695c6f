"""The part of a checkpoint that only resuming needs: the optimizer's state.

Everything becomes named tensors, so that it is stored as safetensors and nothing has to be unpickled. Random numbers
are not among it: sampling and noise are pure functions of the seed and the position (`noise.py`, `data.py`). Gradients
neither: a checkpoint is written between two updates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def capture(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, on the CPU, under the names `optimizer/<parameter>/<key>`."""
    return {
        f"optimizer/{name}/{key}": torch.as_tensor(value).detach().cpu().clone()
        for name, parameter in named_trainable(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `capture` gave; parameters keep their place in the optimizer's groups.

    Raises:
        ValueError: the state is of another model.
    """
    trainable = named_trainable(model)
    if unknown := {name.split("/")[1] for name in tensors} - trainable.keys():
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
    optimizer.load_state_dict(packed)  # puts every tensor on the device that this kind of optimizer wants it on
