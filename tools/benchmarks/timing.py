"""Seconds of a training loop's steps, peak memory, and what the device can multiply at best."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

PEAK_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 sets the peak of resident memory to what it is now
MATRIX = 8192  # side of the measured matrix product


@dataclass
class StepClock:
    """What each step took, from one `end_step` to the next, and how much of it it waited for data; seconds both.

    The first step begins with the clock. The end of a step waits for the GPU.
    """

    device: torch.device
    steps: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def data_is_there(self) -> None:
        """Where the step's data come from a loader that does not say how long it was waited for."""
        self.waits.append(time.perf_counter() - self.began)

    def end_step(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.steps.append(now - self.began)
        self.began = now

    def medians(self, warmup: int) -> tuple[float, float]:
        """Of a step and of its waiting, without the first `warmup` steps."""
        return statistics.median(self.steps[warmup:]), statistics.median(self.waits[warmup:])


def reset_peak(device: torch.device) -> None:
    """Memory is measured anew from here on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif PEAK_RESET.exists():
        PEAK_RESET.write_text("5")


def peak_memory(device: torch.device) -> float:
    """GiB: allocated on the GPU, or resident in this process without its loaders, at most since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return int(PEAK_RESET.with_name("status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def matmul_rate(device: torch.device, repeats: int = 20) -> float | None:
    """FLOP/s of a large bf16 matrix product; None without a GPU."""
    if device.type != "cuda":
        return None
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize(device)
    return 2 * MATRIX**3 * repeats / (time.perf_counter() - began)
