"""Where a run begins and ends, and which clips lie between."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from motion_depth.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class Start:
    """Where a run begins and ends.

    Attributes:
        step, seen: iterations and clips behind it.
        total: iterations of the whole run.
        clips: of an iteration, over all processes.
        checkpoint: that it goes on from; None for a new run.
        best_score: the lowest of its validations and of the best/ that lies in the output folder, which is of this run
            too, but perhaps from a later step; None if there is none.
        identity: of weights and data (`provenance.identify`).
        finished: what to say if nothing is left to do, else "".
    """

    step: int = 0
    seen: int = 0
    total: int = 0
    clips: int = 1
    checkpoint: Checkpoint | None = None
    best_score: float | None = None
    identity: dict = field(default_factory=dict)
    finished: str = ""

    @property
    def saved(self) -> dict:
        """What the checkpoint says of its run so far; empty for a new run."""
        return self.checkpoint.config["training"] if self.checkpoint else {}

    def clips_at(self, step: int) -> int:
        """Clips of the training sequence that the updates until after an iteration are made from."""
        return self.seen + (step - self.step) * self.clips

    @property
    def positions(self) -> range:
        """Of the training sequence, that are left."""
        return range(self.seen, self.clips_at(self.total))

    def updates(self, accumulation: int) -> int:
        """Of the optimizer, in the whole run."""
        return math.ceil(self.positions.stop / (self.clips * accumulation))
