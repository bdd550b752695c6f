"""A training run: what its loop works on, and how it is saved between two updates."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from motion_depth.checkpoints.checkpoint import rotate, write_checkpoint
from motion_depth.checkpoints.models import LoraShape, model_config, model_tensors
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import is_tuned
from motion_depth.readouts.readout import Statistics
from motion_depth.settings import Settings
from motion_depth.training.average import WeightAverage
from motion_depth.training.health import Health
from motion_depth.training.loader import BatchLoader
from motion_depth.training.log import RunLog
from motion_depth.training.optimizer import STATE_FILE, capture
from motion_depth.training.ownership import Occupation
from motion_depth.training.start import Start
from motion_depth.training.validation import Validation, is_better


def is_due(every: int, before: int, step: int) -> bool:
    """Whether a multiple of `every` lies in before+1 .. step; never for 0."""
    return every > 0 and step // every > before // every


@dataclass
class Run:
    """What the loop works on. Every process has one and takes part in each call; the main one writes.

    Attributes:
        start: where this process has begun.
        model: as it is. prepared: the same for several processes.
        average: of what is trained, if one is wanted: what is validated, and what every file of a checkpoint but the
            training state holds.
        lora: on the DiT, if there is any.
        batches: one for each iteration.
        validation: on held-out clips, if there are any.
        occupation: of the output folder, by the main process.
        tracker_id: of the run at wandb, which a continuation goes on with.
        best_score: of the validations so far, also those before `start`.
    """

    accelerator: Accelerator
    settings: Settings
    start: Start
    model: MotionDepthModel
    prepared: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    average: WeightAverage | None
    statistics: Statistics
    lora: LoraShape | None
    batches: BatchLoader
    health: Health
    log: RunLog
    validation: Validation | None
    occupation: Occupation
    tracker_id: str | None
    best_score: float | None

    def averaged(self) -> contextlib.AbstractContextManager:
        """Context in which the model is the average, if there is one."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def validate(self, step: int) -> None:
        """Scores the held-out clips, and keeps the model as best/ if it is better than ever before."""
        if self.validation is None:
            return
        with self.averaged():
            score = self.validation.run(step)
        if is_better(score, self.best_score):
            self.best_score = score
            self.save("best", step)

    def save(self, name: str, step: int) -> None:
        """Writes <output_path>/<name> after an iteration. Only step folders hold what resuming needs.

        Raises:
            ValueError: on every process, if the checkpoint cannot be written.
        """
        output, main, whole = self.settings.output, self.accelerator.is_main_process, name.startswith("step-")
        state = {}
        if whole:
            apart = self.average is not None or is_tuned(self.model.dit)
            state = {STATE_FILE: capture(self.model, self.optimizer, self.average, apart, main)}
        heads = self.model.heads.config if self.model.heads else None
        config = model_config(heads, self.statistics, self.lora, self.settings.plain())
        config["identity"] = self.start.identity
        config["training"] = {
            "step": step,
            "clips": self.start.clips_at(step),
            "processes": self.accelerator.num_processes,
            "scheduler": self.scheduler.state_dict(),
            "wandb_run_id": self.tracker_id,
            "best_score": self.best_score,
            "health": self.health.state(),
        }
        failure = None
        with self.log.paused(), self.averaged():
            tensors = model_tensors(self.model, self.statistics, main) | state
            if main:
                try:
                    self.occupation.require()
                    write_checkpoint(output.output_path / name, tensors, config)
                    if whole:
                        rotate(output.output_path, output.keep_last, step)
                except ValueError as error:
                    failure = str(error)
            failure = broadcast_object_list([failure])[0]
        if failure:
            raise ValueError(failure)
