"""FSDP for the DiT: every process keeps a share of its blocks' weights and gathers a block when it is its turn.

For backbones that do not fit on one GPU. Where the DiT is frozen, what is trained (heads, LoRA) stays whole on every
process and is synchronised by DDP as in any other run. Where all of its weights train, every process keeps a share of
all that is trained, of its gradient and of its optimizer's state. Checkpoints are the same with and without sharing.
The wish comes from `accelerate launch` with a configuration such as configs/fsdp.yaml, through accelerate's own
environment variables.

Source: torch.distributed.fsdp.fully_shard (FSDP2), PyTorch documentation.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from motion_depth.model.tuning import compute_type, is_tuned, read_as_stored
from motion_depth.processes.ranks import world_size

REQUEST = "ACCELERATE_USE_FSDP"


def take_request(full: bool = False) -> FullyShardedDataParallelPlugin | None:
    """What the launcher's configuration asks for; None without one. To be called before there is an Accelerator.

    Args:
        full: whether all of the DiT's weights are to be trained.

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
        "fsdp_ignored_modules": (plugin.ignored_modules, "what is shared is decided here"),
        "fsdp_offload_params": (
            full and isinstance(plugin.cpu_offload, CPUOffloadPolicy),
            "with --tune full the optimizer steps on the GPU",
        ),
    }
    for name, (value, instead) in refused.items():
        if value:
            raise ValueError(f"accelerate configuration: {name} is {value}, which is not supported; {instead}")
    if world_size() < 2:
        raise ValueError("accelerate configuration: FSDP shares the weights among processes, but there is only one")
    os.environ[REQUEST] = "false"
    return plugin


def kept_whole(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of the training module that stay whole on every process."""
    blocks, tuned = set(model.dit.blocks.parameters()), is_tuned(model.dit)
    if tuned:  # what is trained is shared as well
        return {each for each in model.parameters() if not each.requires_grad and each not in blocks}
    return {each for each in model.parameters() if each.requires_grad or each not in blocks}


def move_whole(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves what stays whole; the rest waits where it was loaded until it is sharded, block by block."""
    for parameter in kept_whole(model):
        parameter.data = parameter.data.to(device)
    return model


def prepare_sharded(accelerator: Accelerator, model: nn.Module, plugin: FullyShardedDataParallelPlugin) -> nn.Module:
    """The model with its blocks sharded, inside DDP where what is trained stays whole; collective.

    From here on every forward is collective too: all processes have to make the same number of them.
    """
    tuned, whole = is_tuned(model.dit), kept_whole(model)
    prepared = accelerator.prepare_model(model, device_placement=False, evaluation_mode=tuned)  # which is without DDP
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # Masters are gathered in the type that computes, and their gradients summed in float32. Heads run under autocast.
    policy = MixedPrecisionPolicy(
        param_dtype=compute_type(model.dit), reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    computing = {"mp_policy": policy} if tuned else {}
    if tuned:
        read_as_stored(model.dit)
    for block in model.dit.blocks:
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=plugin.reshard_after_forward,
            offload_policy=plugin.cpu_offload,
            ignored_params=whole,
            **computing,
        )
    for head in model.heads.values() if tuned and model.heads else ():
        fully_shard(head, mesh=mesh, ignored_params=whole)
    # Nothing writes into the predictions, which are views, in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    # The root, which lets a block be gathered ahead of its turn.
    fully_shard(model, mesh=mesh, ignored_params=whole, **computing)
    shards = [parameter for parameter in model.parameters() if isinstance(parameter, DTensor)]
    here, everywhere = (sum(p.numel() for p in of) for of in ([s.to_local() for s in shards], shards))
    what = "trained weights" if tuned else "frozen weights in the DiT's blocks"
    accelerator.print(f"FSDP: {here:,} of the {everywhere:,} {what} are kept by each process")
    return prepared


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes keep shares, put together; others as they are. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], keep: bool, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """`whole`, one after the other, on the CPU of processes that keep them; nothing on others. Collective.

    Args:
        dtype: that they are converted to; None: they keep their own.
    """
    found = {}
    for name, tensor in tensors.items():
        together = whole(tensor.detach())
        if keep:
            found[name] = together.to(dtype or together.dtype).cpu()
    return found


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """What a process keeps of a tensor that it has as a whole, as of a parameter of that shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
