"""An exponential moving average of what is trained: at the end of a run it lies in the middle of where the last updates
have jumped about, and usually scores better than the last of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn


class WeightAverage:
    """Follows some parameters; see `decay_at` for how slowly.

    Args:
        parameters: by name, float32.
        decay: of the average in the long run, such as 0.999.
        updates: of the optimizer, that are behind.

    Attributes:
        values: by name, what the average is; until the first update, what the parameters are.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, updates: int = 0):
        self.parameters, self.decay, self.updates = dict(parameters), decay, updates
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each update of the optimizer."""
        weight = 1 - decay_at(self.updates, self.decay)
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), weight)
        self.updates += 1

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the parameters are the average. They are exchanged in place: others may hold the tensors."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            now = parameter.clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(now)


def decay_at(updates: int, decay: float) -> float:
    """At the update after some: small at first, so that the average forgets where it began."""
    return min(decay, (1 + updates) / (10 + updates))
