"""What a training set looks like: where the heads start, how losses are normalised, and trivial predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Statistics
from motion_depth.readouts.targets import Targets

__all__ = ["Statistics", "measure", "neutral"]


def neutral() -> Statistics:
    """Scales of 1 and numbers of 0, where only shapes or the amount of work matter."""
    scales = {name: 1.0 for readout in READOUTS.values() for name in readout.scales}
    return Statistics(scales, {name: 0.0 for readout in READOUTS.values() for name in readout.numbers})


def measure(targets: Iterable[Targets]) -> Statistics:
    """Goes over the targets of training clips, unbatched, once; one clip in memory at a time.

    Raises:
        ValueError: a quantity has nothing to predict in any clip, or something is not finite.
    """
    measured: dict[str, list] = {name: [] for name in READOUTS}
    for clip in targets:
        clip = clip.to("cpu")
        for name, readout in READOUTS.items():
            measured[name].append(readout.measure(clip))
    found = Statistics()
    for name, readout in READOUTS.items():
        part = readout.statistics(measured[name])
        found.scales.update(part.scales)
        found.numbers.update(part.numbers)
        found.maps.update(part.maps)
    sums = {name: float(values.sum()) for name, values in found.maps.items()}
    for name, value in chain(found.numbers.items(), found.scales.items(), sums.items()):
        if not math.isfinite(value):
            raise ValueError(
                f"statistics of the training clips: {name} is {value}, and no loss divided by it would train; "
                "tools/make_metadata.py --check says which files hold such values"
            )
    return found
