"""Metrics of all quantities at full resolution, in the units of their maps, without any alignment.

Everything is first summed per frame, (b, t), with the number of pixels beside it; means are taken once, over whatever
frames, clips and scenes belong together, so every pixel counts the same however the sums were grouped.

A prediction that is NaN at a pixel that counts makes every sum over it NaN, and so the metric: it is never left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Predictions
from motion_depth.readouts.targets import Targets


def prediction_sums(predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
    """All sums of the heads' predictions (see `MotionDepthHeads.forward`), per frame, (b, t) float64."""
    return {key: value for each in READOUTS.values() for key, value in each.sums(predictions, targets).items()}


def baseline_sums(targets: Targets, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sums of the trivial predictions: name of the baseline -> sums per frame, of every quantity that has it.

    Args:
        maps: see `Statistics.maps`, at the targets' size.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for readout in READOUTS.values():
        for name, sums in readout.baseline_sums(targets, maps).items():
            found.setdefault(name, {}).update(sums)
    return found


def finish(sums: Mapping[str, float]) -> dict[str, float | None]:
    """Sums over any set of frames to metrics; None where no pixel counts, inf or NaN where a sum is. Only metrics whose
    sums are there."""
    return {name: value for each in READOUTS.values() for name, value in each.metrics(sums).items()}
