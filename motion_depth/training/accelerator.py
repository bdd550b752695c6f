"""The processes of a run, as accelerate joins them."""

from __future__ import annotations

import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration

from motion_depth.processes.devices import check_processes
from motion_depth.settings import Settings
from motion_depth.training.trackers import LOGGING_FOLDER, parse_trackers


def start_accelerator(settings: Settings) -> Accelerator:
    """Collective. Raises ValueError, see `check_processes`."""
    # A layout remark of DDP on depthwise convolutions, which it says itself is no error.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ddp = DistributedDataParallelKwargs(find_unused_parameters=False, gradient_as_bucket_view=True)
    waiting = InitProcessGroupKwargs(timeout=timedelta(minutes=settings.output.timeout_minutes))
    accelerator = Accelerator(
        mixed_precision=settings.optim.mixed_precision,
        kwargs_handlers=[ddp, waiting],
        log_with=parse_trackers(settings.output.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str(settings.output.output_path / LOGGING_FOLDER)),
    )
    check_processes(accelerator)
    if accelerator.device.type == "cpu" and settings.optim.dtype == torch.bfloat16:
        # Of torch's two attentions on a CPU the fused one's gradient is slow in bfloat16: half of a small DiT's step.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    return accelerator
