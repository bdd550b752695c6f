"""Seconds of a training loop's phases, peak memory, and what the device can multiply at best."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

PHASES = ("wait", "encode", "dit", "heads", "backward", "optimizer")
PEAK_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 sets the peak of resident memory to what it is now
MATRIX = 8192  # side of the measured matrix product


@dataclass
class StepClock:
    """Adds up what each phase of each step took. Waits for the GPU at every mark, so that time falls where it is spent.

    A step is everything from one `end_step` to the next; what no phase claims is left over (moving targets, losses).
    """

    device: torch.device
    steps: list[dict[str, float]] = field(default_factory=list)
    _phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _began: float = 0.0
    _marked: float = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self) -> None:
        self._began = self._marked = self.now()

    def mark(self, phase: str) -> None:
        """The time since the last mark was this phase's."""
        now = self.now()
        self._phases[phase] += now - self._marked
        self._marked = now

    def move(self, seconds: float, source: str, target: str) -> None:
        """Of what was claimed by one phase, some seconds were another's."""
        self._phases[source] -= seconds
        self._phases[target] += seconds

    def end_step(self) -> None:
        now = self.now()
        self.steps.append({"step": now - self._began, **self._phases})
        self._phases.clear()
        self._began = self._marked = now

    def median(self, warmup: int) -> dict[str, float]:
        """Of each phase and of the whole `step`, seconds, without the first `warmup` steps."""
        counted = self.steps[warmup:]
        return {name: statistics.median(step.get(name, 0.0) for step in counted) for name in (*PHASES, "step")}

    def watch_optimizer(self) -> list:
        """Marks the optimizer's steps, whoever calls them; what comes before one is `backward`. Returns the hooks."""
        return [
            register_optimizer_step_pre_hook(lambda *_: self.mark("backward")),
            register_optimizer_step_post_hook(lambda *_: self.mark("optimizer")),
        ]


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
