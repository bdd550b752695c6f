"""What a run computes on: the GPUs that are there, and never a CPU in their place; tools/launch.sh asks here too.

python -m motion_depth.processes.devices    # prints how many GPUs there are
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import torch

from motion_depth.processes.ranks import world_size

if TYPE_CHECKING:
    from accelerate import Accelerator


def count_gpus() -> int:
    """How many GPUs CUDA_VISIBLE_DEVICES leaves visible; 0: compute on the CPU.

    Raises:
        ValueError: there are some, but CUDA does not start, as with a driver that is older than torch's CUDA.
    """
    found = torch.cuda.device_count()  # as the driver's management library says: also where CUDA cannot start
    if not found:
        return 0
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = re.split(r"\.(?:\s+[A-Z]|\s*$)", str(error).strip() or type(error).__name__)[0]  # its first sentence
        raise ValueError(
            f"GPUs: found {found}, but torch {torch.__version__}, which is built for CUDA {torch.version.cuda}, cannot "
            f"start CUDA ({reason}); update the NVIDIA driver, or install a torch for the CUDA version that nvidia-smi "
            "shows, or hide the GPUs with CUDA_VISIBLE_DEVICES= to compute on the CPU"
        ) from None
    return found


def choose_device(name: str | None) -> str:
    """A device that is there: the one of this name, such as "cuda:1", or without a name a GPU if there is one.

    Raises:
        ValueError: torch does not know it, it is not there, or see `count_gpus`.
    """
    if name is None:
        return "cuda" if count_gpus() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: expected cuda, cuda:1, ... or cpu") from None
    if device.type == "cuda" and (device.index or 0) >= (count := count_gpus()):
        raise ValueError(f"--device {name}: found {count} CUDA devices that can be used; expected another, or cpu")
    return name


def check_processes(accelerator: Accelerator) -> None:
    """Refuses a run that is not what it was started as.

    Raises:
        ValueError: the processes that were started together do not form one group, so that each would train by itself
            into one folder; or the CPU would compute although there are GPUs.
    """
    if accelerator.num_processes != (started := world_size()):
        raise ValueError(
            f"WORLD_SIZE={started} processes were started, but accelerate made groups of {accelerator.num_processes}, "
            f"on {accelerator.device}; start the run with a stage script, which sets what the group needs"
        )
    if accelerator.device.type == "cpu" and (found := torch.cuda.device_count()):
        raise ValueError(
            f"the run would compute on the CPU, but there are {found} GPUs; unset ACCELERATE_USE_CPU, or hide the GPUs "
            "with CUDA_VISIBLE_DEVICES="
        )


if __name__ == "__main__":
    try:
        print(count_gpus())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
