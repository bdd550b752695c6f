"""FSDP for the frozen DiT: every process keeps a share of its blocks' weights and gathers a block when it is its turn.

For backbones that do not fit on one GPU. What is trained (heads, LoRA) stays whole on every process and is synchronised
by DDP as in any other run, so the optimizer, clipping and checkpoints are the same with and without it. The wish comes
from `accelerate launch` with a configuration such as configs/fsdp.yaml, through accelerate's own environment variables.

Source: torch.distributed.fsdp.fully_shard (FSDP2), PyTorch documentation.
"""

from __future__ import annotations

import os
import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from motion_depth.processes.ranks import world_size

REQUEST = "ACCELERATE_USE_FSDP"


def take_request() -> FullyShardedDataParallelPlugin | None:
    """What the launcher's configuration asks for; None without one. To be called before there is an Accelerator.

    The request is taken out of the environment: accelerate itself would also shard what is trained, and cast the
    model's inputs, timesteps among them, to bfloat16.

    Raises:
        ValueError: the configuration has a setting that is not carried out here.
    """
    if not parse_flag_from_env(REQUEST):
        return None
    if int(os.environ.get("FSDP_VERSION", "1")) != 2:
        raise ValueError("accelerate configuration: fsdp_version 1 is not supported; set fsdp_version: 2")
    plugin = FullyShardedDataParallelPlugin()
    refused = {
        "fsdp_activation_checkpointing": (plugin.activation_checkpointing, "use --gradient_checkpointing"),
        "fsdp_cpu_ram_efficient_loading": (plugin.cpu_ram_efficient_loading, "every process reads the weights"),
        "fsdp_ignored_modules": (plugin.ignored_modules, "what is trained is never sharded"),
    }
    for name, (value, instead) in refused.items():
        if value:
            raise ValueError(f"accelerate configuration: {name} is {value}, which is not supported; {instead}")
    if world_size() < 2:
        raise ValueError("accelerate configuration: FSDP shares the weights among processes, but there is only one")
    os.environ[REQUEST] = "false"
    return plugin


def is_whole(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter of the training module stays whole on every process."""
    return parameter.requires_grad or not name.startswith("dit.blocks.")


def move_whole(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves what stays whole; the frozen blocks wait where they were loaded until they are sharded, one by one."""
    for name, parameter in model.named_parameters():
        if is_whole(name, parameter):
            parameter.data = parameter.data.to(device)
    return model


def prepare_sharded(
    accelerator: Accelerator, model: nn.Module, plugin: FullyShardedDataParallelPlugin
) -> nn.parallel.DistributedDataParallel:
    """DDP around what is trained, with the frozen blocks sharded inside; collective.

    From here on every forward is collective too: all processes have to make the same number of them.
    """
    prepared = accelerator.prepare_model(model, device_placement=False)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    whole = {parameter for name, parameter in model.named_parameters() if is_whole(name, parameter)}
    for block in model.dit.blocks:
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=plugin.reshard_after_forward,
            offload_policy=plugin.cpu_offload,
            ignored_params=whole,
        )
    # Nothing writes into the predictions, which are views, in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    fully_shard(model, mesh=mesh, ignored_params=whole)  # the root, which lets a block be gathered ahead of its turn
    shards = [parameter for parameter in model.parameters() if isinstance(parameter, DTensor)]
    here, everywhere = (sum(p.numel() for p in of) for of in ([s.to_local() for s in shards], shards))
    accelerator.print(
        f"FSDP: {here:,} of the {everywhere:,} frozen weights in the DiT's blocks are kept by each process"
    )
    return prepared
