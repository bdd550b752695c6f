"""AdamW over what is trained, its learning rates, and the state of both as named tensors.

So the state is stored as safetensors and nothing has to be unpickled. A checkpoint needs nothing else to go on:
sampling and noise are pure functions of the seed and the position (`clips.noise`, `clips.dataset`), and it is written
between two updates, where there are no gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.model.sharding import gather, share
from motion_depth.training.average import WeightAverage

STATE_FILE = "training_state.safetensors"


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adamw(model: nn.Module, learning_rate: float, dit_learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over the heads and what of the DiT is trained, each with its own learning rate."""
    trainable = named_trainable(model)
    groups = [
        {"params": [p for name, p in trainable.items() if name.startswith("heads.")], "lr": learning_rate},
        {"params": [p for name, p in trainable.items() if name.startswith("dit.")], "lr": dit_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=weight_decay, fused=True)


def require_gradients(model: nn.Module) -> None:
    """Raises ValueError if a trainable tensor has received no gradient: it would train nothing without a word."""
    if dead := [name for name, parameter in named_trainable(model).items() if parameter.grad is None]:
        raise ValueError(f"{len(dead)} trainable tensors receive no gradient, the first is {dead[0]}")


def continue_from(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    average: WeightAverage | None,
) -> None:
    """Puts everything where a step folder has it. Raises ValueError, see `restore`."""
    restore(model, optimizer, average, checkpoint.tensors(STATE_FILE))
    scheduler.load_state_dict(checkpoint.config["training"]["scheduler"])
    if average is not None:
        average.updates = scheduler.last_epoch
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate  # the schedule sets it only where it moves on, which is after the next update


def capture(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    with_weights: bool,
    keep: bool = True,
) -> dict[str, Tensor]:
    """What is trained, between two updates, copied to the CPU. Collective.

    Args:
        with_weights: whether the checkpoint's other files hold something else than the weights themselves: a moving
            average, or what is rounded.
        keep: whether this process wants the tensors.

    Returns:
        Names are `optimizer/<parameter>/<key>`, `weights/<parameter>` and, of a moving average, `average/<parameter>`.
    """
    trainable = named_trainable(model)
    state = {
        f"optimizer/{name}/{key}": value
        for name, parameter in trainable.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    if with_weights:
        state |= {f"weights/{name}": parameter for name, parameter in trainable.items()}
    if average is not None:
        state |= {f"average/{name}": value for name, value in average.values.items()}
    state = gather({name: torch.as_tensor(value) for name, value in state.items()}, keep)
    return {name: value.clone() for name, value in state.items()}


@torch.no_grad()
def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None, tensors: dict[str, Tensor]
) -> None:
    """Puts back what `capture` gave; parameters keep their place in the optimizer's groups.

    Raises:
        ValueError: the state is of another model.
    """
    trainable = named_trainable(model)
    if unknown := {name.split("/")[1] for name in tensors} - trainable.keys():
        raise ValueError(f"training state: no parameter is called {min(unknown)}; it was written by another model")
    for name, parameter in trainable.items():
        if (value := tensors.get(f"weights/{name}")) is not None:
            parameter.copy_(share(value, parameter))
    if average is not None:
        for name, value in average.values.items():
            value.copy_(share(tensors[f"average/{name}"], value))
    packed = optimizer.state_dict()
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    number = {parameter: place for place, parameter in enumerate(order)}
    for name, parameter in trainable.items():
        prefix = f"optimizer/{name}/"
        names = [key for key in tensors if key.startswith(prefix)]
        state = {key.removeprefix(prefix): share(tensors[key].clone(), parameter) for key in names}
        if state:
            packed["state"][number[parameter]] = state
    optimizer.load_state_dict(packed)  # puts every tensor on the device that this kind of optimizer wants it on
