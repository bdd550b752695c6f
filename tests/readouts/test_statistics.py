"""Statistics of a training set that holds numbers which no loss can be divided by and no logarithm taken of."""

import math

import pytest
import torch

from motion_depth.readouts.statistics import measure
from motion_depth.readouts.targets import Targets
from tests.support.quantities import motion_and_depth


def targets(**changes: float) -> Targets:
    """Three frames of 4 x 4 that move; the first number of a map is another one."""
    maps = {"motion": torch.full((3, 2, 4, 4), 2.0), "depth": torch.full((3, 4, 4), 3.0)}
    for name, value in changes.items():
        maps[name].view(-1)[0] = value
    valid = torch.ones(3, 4, 4, dtype=torch.bool)
    return motion_and_depth(maps["motion"], valid, maps["depth"], valid.clone())


@pytest.mark.parametrize("changes", [{"depth": 0.0}, {"depth": math.inf}, {"depth": math.nan}, {"motion": math.inf},
                                     {"motion": math.nan}])  # fmt: skip
def test_a_scale_that_is_not_finite_is_an_error(changes):
    assert measure([targets()]).numbers["log_depth"] == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match=r"^statistics of the training clips: \w[\w ]* is (inf|-inf|nan), and no loss"):
        measure([targets(), targets(**changes)])
