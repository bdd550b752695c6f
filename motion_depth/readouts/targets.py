"""What the heads should say: a map and a mask for each quantity, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """A quantity of one clip or of a batch of clips; what the map holds where it is not valid means nothing.

    Attributes:
        map: (t, ..., h, w) or (b, t, ..., h, w); the axes between t and h are the readout's `map_channels`.
        valid: (t, h, w) or (b, t, h, w) bool. None, of what is only shown: wherever there is a value.
    """

    map: Tensor
    valid: Tensor | None


class Targets(dict[str, Target]):
    """Quantities by the names of the table (`readouts.READOUTS`), all of one length and one size."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same of other tensors: what `change` makes of every map and every mask."""
        return Targets({name: Target(*map(change, target)) for name, target in self.items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = torch.float32) -> Targets:
        """Moves everything; maps also change type, after they were moved as small as they are. None: they keep it."""
        moved = self.each(lambda value: value.to(device, non_blocking=True))
        return Targets({name: Target(map.to(dtype), valid) for name, (map, valid) in moved.items()}) if dtype else moved

    def pin_memory(self) -> Targets:
        return self.each(Tensor.pin_memory)

    def take(self, frames: Tensor) -> Targets:
        """Some frames of each clip of a batch: frames is (b, n), what comes back has n in the place of t."""
        clip = torch.arange(len(frames), device=frames.device)[:, None]
        return self.each(lambda value: value[clip, frames])

    def tensors(self) -> Iterator[Tensor]:
        return (value for target in self.values() for value in target)

    @staticmethod
    def stack(several: Sequence[Targets]) -> Targets:
        """Those of single clips to a batch of them."""
        return Targets(
            {
                name: Target(*(torch.stack(values) for values in zip(*(each[name] for each in several), strict=True)))
                for name in several[0]
            }
        )
