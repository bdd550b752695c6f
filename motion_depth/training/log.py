"""What a run says while it trains: `log.jsonl` beside the checkpoints, rows for the trackers, the progress bar."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from motion_depth.clips.batch import Batch
from motion_depth.clips.noise import noise_bin
from motion_depth.files.atomic import finite, flush, write_whole
from motion_depth.progress import ProgressBar
from motion_depth.training.health import Clips, Health

LOG_FILE = "log.jsonl"
UNDONE_FILE = "log.undone.jsonl"  # rows of updates that a continuation has made again


class RunLog:
    """Collects what every clip gave, and writes one row per optimizer update.

    Args:
        accelerator: rows are averaged over all its processes; only the main one writes.
        output_path: folder of `log.jsonl`.
        total: iterations of the whole run. start: iterations done before this process started.
    """

    def __init__(self, accelerator: Accelerator, output_path: Path, total: int, start: int):
        self.accelerator = accelerator
        self.rows: list[Tensor] = []  # (b, 3 + losses) each: position, sigma, gradient, losses
        self.names: list[str] = []
        self.file = None
        self.began = time.perf_counter()  # of the update that is under way
        self.bar = ProgressBar(
            total=total, initial=start, unit="it", dynamic_ncols=True, disable=not accelerator.is_main_process
        )
        if accelerator.is_main_process:
            output_path.mkdir(parents=True, exist_ok=True)
            _keep_rows_until(output_path / LOG_FILE, start)
            self.file = (output_path / LOG_FILE).open("a", buffering=1)

    def add(self, batch: Batch, losses: dict[str, Tensor], gradient: Tensor) -> None:
        """Remembers the per-clip losses (b,) of one iteration; no synchronisation with the device.

        Args:
            gradient: see `health.gradient_size`.
        """
        self.names = list(losses)
        positions = torch.tensor(batch.positions, dtype=torch.float64).to(batch.sigma.device, non_blocking=True)
        columns = [positions, batch.sigma, gradient.expand_as(batch.sigma), *losses.values()]
        self.rows.append(torch.stack([column.detach().double() for column in columns], dim=1))
        self.bar.update()

    def collect(self) -> Clips:
        """The clips since the last call, of all processes, on every process; waits for the device."""
        table = self.accelerator.gather(torch.cat(self.rows)).cpu()
        self.rows.clear()
        return Clips.of(table, self.names)

    def speed(self, clips: int, waited: float) -> dict[str, float]:
        """Of the update that ends here, when the device has done its work, with what led to it since the last one.

        Args:
            clips: of all processes. waited: seconds that this process's device waited for them.
        """
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        return {"clips_per_s": clips / seconds, "data_wait": waited / seconds}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context of what is no training, validating and saving: `speed` leaves its time out. May be nested."""
        passed = time.perf_counter() - self.began
        yield
        self.began = time.perf_counter() - passed

    def write(self, step: int, clips: Clips, **values: float) -> None:
        """Writes the clips' mean losses, also by noise level, and further values.

        Args:
            step: iterations done; the only x axis that wandb is given.
        """
        row = {name: sum(found) / len(found) for name, found in clips.losses.items()}
        bins: dict[str, list[float]] = defaultdict(list)
        for name, found in clips.losses.items():
            for sigma, value in zip(clips.sigma, found, strict=True):
                bins[f"{name}/sigma_{noise_bin(sigma)}"].append(value)
        self.log(step, row | {name: sum(found) / len(found) for name, found in bins.items()} | values, "train")
        losses = {name: f"{row[name]:.3f}" for name in self.names if name.endswith("loss")}
        self.bar.set_postfix(losses, refresh=False)

    def event(self, step: int, message: str, **values: float) -> None:
        """Says what happened at an iteration, on the console and in `log.jsonl`; the trackers get the values."""
        if self.file is not None:
            ProgressBar.write(f"iteration {step}: {message}", file=sys.stderr)
        self.log(step, values, "health", message=message)

    def log(self, step: int, row: dict[str, float], group: str, **remarks: str) -> None:
        """Writes one row to `log.jsonl`, null for inf and NaN, and, as `group/name`, to the trackers.

        Args:
            remarks: for `log.jsonl` alone.
        """
        if self.file is not None:
            named = {} if group == "train" else {"group": group}
            self.file.write(json.dumps(finite({"step": step, **named, **row, **remarks})) + "\n")
        named = {f"{group}/{name}": value for name, value in row.items()}
        self.accelerator.log({"iteration": step, **named}, step=step)

    def update(self, step: int, clips: Clips, health: Health, problem: str | None, **values: float) -> None:
        """Writes what came of an optimizer update: its row, or why it was skipped (`Health.problem`)."""
        if problem:
            self.event(step, problem, skipped_updates=health.skipped)
            return
        self.write(step, clips, **values)
        if times := health.spike(values["grad_norm"]):
            message = f"gradient norm {values['grad_norm']:.3g} is {times:.0f} times its running median"
            self.event(step, message, grad_norm_over_median=times)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.bar.close()
        if self.file is not None:
            self.file.close()


def _keep_rows_until(path: Path, step: int) -> None:
    """Moves the rows of a killed run that come after the checkpoint it goes on from to UNDONE_FILE: they come again.

    A run that begins anew keeps none: it validates at step 0 again.
    """
    if not path.exists():
        return
    kept, undone = [], []
    for line in path.read_text().splitlines():
        (kept if step and 0 <= _step(line) <= step else undone).append(f"{line}\n")
    if undone:
        with path.with_name(UNDONE_FILE).open("a") as file:
            file.writelines(undone)
        flush(path.with_name(UNDONE_FILE))
        write_whole(path, "".join(kept))


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1  # the last line of a killed run may be cut
