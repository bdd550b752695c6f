"""A training run's state: what it saves, what it validates with, what it continues from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from motion_depth.checkpoints.checkpoint import Checkpoint, rotate, write_checkpoint
from motion_depth.checkpoints.models import LoraShape, model_config, model_tensors
from motion_depth.model.motion_depth import MotionDepthModel, count_operations
from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Statistics
from motion_depth.training.health import Health
from motion_depth.training.log import RunLog
from motion_depth.training.ownership import Occupation
from motion_depth.training.state import capture, named_trainable, restore
from motion_depth.training.validation import Validation, is_better, log_validation

STATE_FILE = "training_state.safetensors"


def build_optimizer(
    model: MotionDepthModel, learning_rate: float, lora_learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """Fused AdamW over heads and LoRA, each with its own learning rate."""
    trainable = named_trainable(model)
    groups = [
        {"params": [p for name, p in trainable.items() if name.startswith("heads.")], "lr": learning_rate},
        {"params": [p for name, p in trainable.items() if name.startswith("dit.")], "lr": lora_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=weight_decay, fused=True)


def is_due(every: int, before: int, step: int) -> bool:
    """Whether a multiple of `every` lies in before+1 .. step; never for 0."""
    return every > 0 and step // every > before // every


@dataclass
class Run:
    """What the loop works on.

    Attributes:
        settings: all flags as plain values; written into every checkpoint.
        lora: of stage 2, None in stage 1.
        keep_last: step-N folders that are kept; 0: all.
        clips: clips of an iteration, over all processes.
        health: skipped updates and gradient norms.
        occupation: of the output folder, by the main process.
        identity: of weights and data (`provenance.identify`), on the main process.
        seen: clips of the training sequence that the updates so far were made from.
        validation: on held-out clips, if there are any.
        log: set before the loop starts.
        wandb_id: of the run at wandb, continued after resuming.
        best_score: of the validations so far (`validation.score_of`).
    """

    accelerator: Accelerator
    model: MotionDepthModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    statistics: Statistics
    settings: dict
    lora: LoraShape | None
    output_path: Path
    keep_last: int
    clips: int
    health: Health
    occupation: Occupation
    identity: dict
    seen: int = 0
    validation: Validation | None = None
    log: RunLog | None = None
    wandb_id: str | None = None
    best_score: float | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Optimizer, schedule and bookkeeping of a step folder."""
        saved = checkpoint.config["training"]
        restore(self.model, self.optimizer, checkpoint.tensors(STATE_FILE))
        self.scheduler.load_state_dict(saved["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
            group["lr"] = rate  # the schedule sets it only where it moves on, which is after the next update
        self.seen, self.wandb_id, self.best_score = saved["clips"], saved["wandb_run_id"], saved["best_score"]
        self.health.restore(saved["health"])

    def know_best(self, score: float | None) -> None:
        """Of the best/ that is there: of this run too, but perhaps from a later step than it goes on from.

        A worse model does not take its place. One that comes again, from the same updates, is equal and need not.
        """
        self.best_score = min((each for each in (self.best_score, score) if each is not None), default=None)

    def describe(self, start: int, total: int, updates: int, size: tuple[int, int, int]) -> str:
        """What is about to run, in numbers.

        Args:
            start, total: iterations. updates: of the optimizer. size: (frames, height, width) of a clip.
        """
        device, precision = self.accelerator.device.type, self.accelerator.mixed_precision
        operations = count_operations(self.model, *size)
        data = (readout.describe(self.statistics.numbers) for readout in READOUTS.values())
        trained = sum(parameter.numel() for parameter in named_trainable(self.model).values())
        heads = sum(parameter.numel() for parameter in self.model.heads.parameters())
        dit = sum(parameter.numel() for parameter in self.model.dit.parameters())
        return (
            f"data: {', '.join(filter(None, data))}\n"
            f"run: iterations {start} to {total} of {self.clips} clips, {updates} optimizer updates, on "
            f"{self.accelerator.num_processes} x {device}, precision {precision}; results in {self.output_path}\n"
            f"model: heads {heads:,} and DiT {dit:,} parameters, {trained:,} of them trained; a forward takes "
            f"{operations['heads'] / 1e12:.3g} and {operations['dit'] / 1e12:.3g} TFLOP"
        )

    def require_gradients(self) -> None:
        """Raises ValueError if a trainable tensor has received no gradient."""
        if dead := [name for name, parameter in named_trainable(self.model).items() if parameter.grad is None]:
            raise ValueError(f"{len(dead)} trainable tensors receive no gradient, the first is {dead[0]}")

    def update(self, step: int, max_grad_norm: float, waited: Callable[[], float]) -> None:
        """One optimizer update with the accumulated gradients, unless something in it is not finite; and its log row.

        An update that is skipped leaves weights, optimizer and learning rate as they are. Collective.

        Args:
            max_grad_norm: gradients are clipped to it; 0: not.
            waited: see `BatchLoader.waited`.
        """
        parameters = list(named_trainable(self.model).values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf))
        clips = self.log.collect()
        speed = self.log.speed(len(clips.positions), waited())
        self.seen += len(clips.positions)
        if problem := self.health.problem(clips, norm):
            self.log.event(step, problem, skipped_updates=self.health.skipped)
        else:
            lr = self.scheduler.get_last_lr()[0]
            self.optimizer.step()
            self.scheduler.step()
            self.log.write(step, clips, lr=lr, grad_norm=norm, **speed)
            if times := self.health.spike(norm):
                message = f"gradient norm {norm:.3g} is {times:.0f} times its running median"
                self.log.event(step, message, grad_norm_over_median=times)
        self.optimizer.zero_grad()

    def hopeless_message(self, step: int) -> str:
        return (
            f"{self.health.in_row} updates in a row had inf or NaN in them (--max_bad_steps); "
            f"step-{step} holds weights and optimizer as they were before the first of them. The clips are named above "
            "and in log.jsonl"
        )

    def nothing_learned_message(self) -> str:
        return (
            f"all {self.health.skipped} updates of the run had inf or NaN in them and were skipped: nothing was "
            "learned, so there is no final/. The clips are named above and in log.jsonl; step folders and best/, "
            "if there are any, hold the weights that the run began with"
        )

    def save(self, name: str, step: int) -> None:
        """Writes <output_path>/<name>; every process takes part, the main one writes.

        Only step folders hold what resuming needs.

        Raises:
            ValueError: on every process, if the checkpoint cannot be written.
        """
        whole = name.startswith("step-")
        main = self.accelerator.is_main_process
        state = {STATE_FILE: capture(self.model, self.optimizer)} if whole and main else {}
        config = model_config(self.model.heads.config, self.statistics, self.lora, self.settings)
        config["identity"] = self.identity
        config["training"] = {
            "step": step,
            "clips": self.seen,
            "processes": self.accelerator.num_processes,
            "scheduler": self.scheduler.state_dict(),
            "wandb_run_id": self.wandb_id,
            "best_score": self.best_score,
            "health": self.health.state(),
        }
        failure = None
        with self.log.paused():
            if main:
                try:
                    self.occupation.require()
                    tensors = model_tensors(self.model, self.statistics) | state
                    write_checkpoint(self.output_path / name, tensors, config)
                    if whole:
                        rotate(self.output_path, self.keep_last, step)
                except ValueError as error:
                    failure = str(error)
            failure = broadcast_object_list([failure])[0]
        if failure:
            raise ValueError(failure)

    def validate(self, step: int) -> None:
        """Scores the held-out clips, and keeps the model as best/ if it is better than ever before."""
        if self.validation is None:
            return
        with self.log.paused():
            row = self.validation.run(self.model, self.output_path, step)
            self.log.log(step, row, "val")
            log_validation(self.accelerator, self.output_path, step)
        if not math.isfinite(row["score"]):
            self.log.event(step, "val/score is not finite: the heads predict inf or NaN; best/ stays as it is")
        if is_better(row["score"], self.best_score):
            self.best_score = row["score"]
            self.save("best", step)
