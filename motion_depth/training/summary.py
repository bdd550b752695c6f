"""What is about to run, and what it came to, in numbers."""

from __future__ import annotations

from accelerate import Accelerator

from motion_depth.model.compiling import compile_counts
from motion_depth.model.motion_depth import MotionDepthModel, count_operations
from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Statistics
from motion_depth.settings import Settings
from motion_depth.training.health import Health
from motion_depth.training.optimizer import named_trainable
from motion_depth.training.start import Start


def describe_run(
    accelerator: Accelerator, settings: Settings, model: MotionDepthModel, statistics: Statistics, start: Start
) -> str:
    """Lines about data, run and model, and a remark if so much of it is warm-up that it learns little else."""
    clip, optim = settings.clip, settings.optim
    operations = count_operations(model, clip.num_frames, clip.height, clip.width)
    told = (readout.describe(statistics.numbers) for readout in READOUTS.values()) if model.heads else ()
    data = f"data: {', '.join(found)}\n" if (found := list(filter(None, told))) else ""
    numbers = sum(parameter.numel() for parameter in named_trainable(model).values())
    parts = {name: sum(each.numel() for each in part.parameters()) for name, part in model.named_children()}
    updates = start.updates(optim.gradient_accumulation_steps)
    names = {"heads": "heads", "dit": "DiT"}
    sizes = " and ".join(f"{called} {parts[name]:,}" for name, called in names.items() if name in parts)
    work = " and ".join(f"{operations[name] / 1e12:.3g}" for name in names if name in parts)
    remark = warmup_remark(optim.lr_scheduler, optim.lr_warmup_steps, updates)
    return (
        f"{data}"
        f"run: iterations {start.step} to {start.total} of {start.clips} clips, {updates} optimizer updates, on "
        f"{accelerator.num_processes} x {accelerator.device.type}, precision {accelerator.mixed_precision}; "
        f"results in {settings.output.output_path}\n"
        f"model: {sizes} parameters, {numbers:,} of them trained; a forward takes {work} TFLOP"
    ) + (f"\nwarning: {remark}" if remark else "")


def describe_end(settings: Settings, start: Start, health: Health) -> str:
    compiled = f"{compile_counts()}\n" if settings.optim.compile else ""
    skipped = f", {health.skipped} updates skipped" if health.skipped else ""
    trained = ["heads"] if settings.with_heads else []
    trained += ["DiT" if settings.full else "LoRA"] if settings.stage == 2 else []
    folder = settings.output.output_path / "final"
    return f"{compiled}done: {start.total} iterations{skipped}; {' and '.join(trained)} in {folder}"


def warmup_remark(scheduler: str, warmup: int, updates: int) -> str | None:
    """A line where warm-up is more than a tenth of a run; else None.

    Args:
        warmup, updates: optimizer updates, of the warm-up and of the whole run.
    """
    if scheduler == "constant" or warmup <= updates / 10:
        return None
    return (
        f"--lr_warmup_steps {warmup}: {min(1, warmup / updates):.0%} of the run's {updates} optimizer updates are "
        f"warm-up; a tenth would be {updates // 10}"
    )
