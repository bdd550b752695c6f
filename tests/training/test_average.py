"""The moving average of what is trained, by hand."""

import pytest
import torch
from torch import nn

from motion_depth.training.average import WeightAverage, decay_at


def test_it_warms_up_and_stops_at_the_decay():
    assert decay_at(0, 0.999) == pytest.approx(1 / 10)
    assert decay_at(90, 0.999) == pytest.approx(91 / 100)
    assert decay_at(10**6, 0.999) == 0.999
    assert decay_at(90, 0.5) == 0.5


def test_the_average_of_three_updates_by_hand():
    weight = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"w": weight}, 0.2)
    assert average.values["w"].item() == 1.0
    for value in (2.0, 3.0, 4.0):
        weight.data.fill_(value)
        average.update()
    expected = 0.1 * 1 + 0.9 * 2  # decay 1/10, then 2/11, then 3/12, of which 0.2 is allowed
    expected = 2 / 11 * expected + 9 / 11 * 3
    expected = 0.2 * expected + 0.8 * 4
    assert average.values["w"].item() == pytest.approx(expected)
    with average.in_place():
        assert weight.item() == pytest.approx(expected)
        assert average.values["w"].item() == 4.0
    assert weight.item() == 4.0
