"""Numbers that go wrong: updates that must not be made, and gradients far above what they were.

What is found depends only on numbers that all processes share, so all of them decide alike.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from motion_depth.model.sharding import whole

WINDOW = 100  # updates that the median of the gradient norm is taken over
ENOUGH = 20  # updates before a median means something
FAR_ABOVE = 10.0  # times the median
NAMED = 8  # clips that a message names


@dataclass(frozen=True)
class Clips:
    """What the clips of one optimizer update gave, over all processes and iterations, in the training sequence's order.

    Attributes:
        positions: of each clip in the training sequence.
        sigma: of each clip.
        gradients: (n,) size of the gradient accumulated on the clip's process after its iteration; inf or NaN from the
            iteration on that made it so.
        losses: by name, (n,) each.
    """

    positions: list[int]
    sigma: list[float]
    gradients: list[float]
    losses: dict[str, list[float]]

    @staticmethod
    def of(table: Tensor, names: Sequence[str]) -> Clips:
        """From rows (position, sigma, gradient, losses ...) in any order."""
        columns = sorted(table.tolist())
        positions, sigma, gradients, *losses = map(list, zip(*columns, strict=True))
        return Clips([int(position) for position in positions], sigma, gradients, dict(zip(names, losses, strict=True)))


def gradient_size(parameters: Sequence[Tensor]) -> Tensor:
    """A number that is finite exactly if every gradient is; stays on the device. Collective if they are shared."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shared = any(isinstance(gradient, DTensor) for gradient in gradients)
    # An empty share has no largest number.
    return whole(torch.nn.utils.get_total_norm(gradients, 2.0 if shared else torch.inf))


@dataclass
class Health:
    """Counts updates that were skipped, and remembers gradient norms; all of it belongs into a checkpoint (`state`).

    Attributes:
        max_bad_steps: skipped updates in a row that end the run; 0: never.
        name_of: a clip's name by its position.
        skipped: updates skipped in the run so far. in_row: without one that was made between them.
        norms: gradient norms of the last updates that were made.
    """

    max_bad_steps: int
    name_of: Callable[[int], str]
    skipped: int = 0
    in_row: int = 0
    norms: deque[float] = ()

    def __post_init__(self) -> None:
        self.norms = deque(self.norms, maxlen=WINDOW)

    def problem(self, clips: Clips, norm: float) -> str | None:
        """Why an update must not be made, with the clips' names; None if it can be made. Counts it.

        Args:
            norm: of all gradients, the same on all processes.
        """
        losses = list(zip(*clips.losses.values(), strict=True))
        bad = [at for at, values in enumerate(losses) if not all(map(math.isfinite, values))]
        what = "the loss is not finite for"
        if not bad and not math.isfinite(norm):
            first = [at for at, size in enumerate(clips.gradients) if not math.isfinite(size)]
            bad, what = first or list(range(len(losses))), "the gradient is not finite from"
        if not bad:
            self.in_row = 0
            return None
        self.skipped += 1
        self.in_row += 1
        names = [f"{self.name_of(clips.positions[at])} at sigma {clips.sigma[at]:.3f}" for at in bad]
        shown = "; ".join(names[:NAMED]) + (f"; and {len(names) - NAMED} more" if len(names) > NAMED else "")
        return f"update skipped, {what} {shown} ({self.in_row} in a row, {self.skipped} in this run)"

    def spike(self, norm: float) -> float | None:
        """How many times its running median a gradient norm is, if it is far above it; remembers the norm."""
        median = statistics.median(self.norms) if len(self.norms) >= ENOUGH else math.inf
        self.norms.append(norm)
        return norm / median if norm > FAR_ABOVE * median > 0 else None

    @property
    def diverged(self) -> bool:
        return 0 < self.max_bad_steps <= self.in_row

    @property
    def learned(self) -> bool:
        """Whether any update of the run was made, also before it was interrupted."""
        return bool(self.norms)

    def state(self) -> dict:
        return {"skipped": self.skipped, "in_row": self.in_row, "norms": list(self.norms)}

    def diverged_message(self, step: int) -> str:
        """What to say of the end of a run after an iteration."""
        return (
            f"{self.in_row} updates in a row had inf or NaN in them (--max_bad_steps); "
            f"step-{step} holds weights and optimizer as they were before the first of them. The clips are named above "
            "and in log.jsonl"
        )

    def nothing_learned_message(self) -> str:
        return (
            f"all {self.skipped} updates of the run had inf or NaN in them and were skipped: nothing was "
            "learned, so there is no final/. The clips are named above and in log.jsonl; step folders and best/, "
            "if there are any, hold the weights that the run began with"
        )
