"""AdamW over what is trained, its learning rates, and its state as named tensors.

So the state is stored as safetensors and nothing has to be unpickled. A checkpoint needs nothing else to go on:
sampling and noise are pure functions of the seed and the position (`clips.noise`, `clips.dataset`), and it is written
between two updates, where there are no gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from motion_depth.checkpoints.checkpoint import Checkpoint

STATE_FILE = "training_state.safetensors"


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adamw(model: nn.Module, learning_rate: float, lora_learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over heads and LoRA, each with its own learning rate."""
    trainable = named_trainable(model)
    groups = [
        {"params": [p for name, p in trainable.items() if name.startswith("heads.")], "lr": learning_rate},
        {"params": [p for name, p in trainable.items() if name.startswith("dit.")], "lr": lora_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=weight_decay, fused=True)


def require_gradients(model: nn.Module) -> None:
    """Raises ValueError if a trainable tensor has received no gradient: it would train nothing without a word."""
    if dead := [name for name, parameter in named_trainable(model).items() if parameter.grad is None]:
        raise ValueError(f"{len(dead)} trainable tensors receive no gradient, the first is {dead[0]}")


def continue_from(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler
) -> None:
    """Puts optimizer and learning rates where a step folder has them. Raises ValueError, see `restore`."""
    restore(model, optimizer, checkpoint.tensors(STATE_FILE))
    scheduler.load_state_dict(checkpoint.config["training"]["scheduler"])
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate  # the schedule sets it only where it moves on, which is after the next update


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
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    number = {parameter: place for place, parameter in enumerate(order)}
    for name, parameter in trainable.items():
        prefix = f"optimizer/{name}/"
        state = {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            packed["state"][number[parameter]] = state
    optimizer.load_state_dict(packed)  # puts every tensor on the device that this kind of optimizer wants it on
