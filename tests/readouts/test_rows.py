"""Rows of panels: truth and prediction look alike, and errors say how far they are apart."""

import pytest
import torch
from torch import Tensor

from motion_depth.pictures.colours import NO_VALUE, ErrorScale
from motion_depth.readouts import READOUTS
from motion_depth.readouts.depth import DepthScale
from motion_depth.readouts.motion import MotionScale
from motion_depth.readouts.rows import predicted_maps, reading_rows, truth_and_prediction_rows
from motion_depth.readouts.targets import Targets
from tests.support.quantities import moving_square


@pytest.fixture
def truth() -> Targets:
    return moving_square()


@pytest.fixture
def frames(truth: Targets) -> Tensor:
    """(t, h, w, 3) uint8, brighter where it is nearer."""
    return (250 - 20 * truth["depth"].map)[..., None].expand(-1, -1, -1, 3).to(torch.uint8)


def predict(truth: Targets, motion: float = 0.5, depth: float = 1.1) -> dict[str, Tensor]:
    """A share of the true motion and of the true distances; predicted at every pixel and frame."""
    distance = depth * truth["depth"].map.clamp(min=1.0)
    nothing = torch.where(truth["depth"].valid, -1.0, 1.0)
    return {"motion": motion * truth["motion"].map, "log_depth": distance.log(), "background_logit": nothing}


@pytest.fixture
def rows(frames, truth) -> dict:
    return {row.label: row for row in truth_and_prediction_rows(frames, truth, predict(truth))}


def test_truth_and_prediction_share_their_scales(rows, truth):
    assert rows["True motion"].scale == rows["Predicted motion"].scale == MotionScale(4.0)
    assert rows["True depth"].scale == rows["Predicted depth"].scale == DepthScale(2.0, 8.0)
    predicted = predict(truth)
    assert (rows["Predicted motion"].frames[1:] == MotionScale(4.0).colour(predicted["motion"])[1:]).all()
    assert (rows["Predicted depth"].frames == DepthScale(2.0, 8.0).colour(predicted["log_depth"].exp())).all()
    assert [row.line for row in rows.values()] == [0, 0, 0, 0, 1, 1, 1]


def test_a_perfect_prediction_looks_like_the_truth(frames, truth):
    rows = {row.label: row for row in truth_and_prediction_rows(frames, truth, predict(truth, 1.0, 1.0))}
    for name, target in truth.items():
        valid = READOUTS[name].has_value(target).numpy()
        assert (rows[f"True {name}"].frames[valid] == rows[f"Predicted {name}"].frames[valid]).all()


def test_the_first_frame_has_no_motion(rows, truth):
    for label in ("True motion", "Predicted motion", "Motion error"):
        assert (rows[label].frames[0] == NO_VALUE).all(), label
        assert (rows[label].frames[1] != NO_VALUE).any(axis=-1).all(), label
    assert truth["motion"].valid.all(), "the caller's masks are left as they are"


def test_errors_are_lengths_and_shares_whatever_the_predictions_own_mask(rows):
    assert rows["Motion error"].scale == ErrorScale(4.0, "px")
    assert rows["Depth error"].scale == ErrorScale(25.0, "%")
    two_of_four = ErrorScale(4.0, "px").colour(torch.full((1, 1, 1), 2.0))[0, 0, 0]
    assert (rows["Motion error"].frames[1, 15, 12] == two_of_four).all()
    ten_percent = ErrorScale(25.0, "%").colour(torch.full((1, 1, 1), 10.0))[0, 0, 0]
    found = rows["Depth error"].frames[0]
    assert abs(found[8:].astype(int) - ten_percent).max() <= 2
    assert (found[:8] == NO_VALUE).all(), "there is no true depth in the sky"


def test_a_predictions_own_mask_hides_no_error(frames, truth, rows):
    nothing = predict(truth) | {"background_logit": torch.ones_like(truth["depth"].map)}
    hidden = {row.label: row for row in truth_and_prediction_rows(frames, truth, nothing)}
    assert all((row.frames == rows[label].frames).all() for label, row in hidden.items())
    read = {row.label: row for row in reading_rows({}, {"Read": predicted_maps(nothing)})}
    assert (read["Read depth"].frames == NO_VALUE).all()


def test_readings_share_the_scales_of_the_first(frames, truth):
    read = predicted_maps(predict(truth))
    rows = reading_rows({"Generated video": frames}, {"Read": read, "Forecast": truth})
    assert [row.label for row in rows] == [
        "Generated video", "Read motion", "Forecast motion", "Read depth", "Forecast depth"
    ]  # fmt: skip
    assert [row.line for row in rows] == [0, 0, 0, 1, 1]
    scales = [READOUTS[name].scale(target) for name, target in read.items()]
    assert [row.scale for row in rows] == [None, *[scales[0]] * 2, *[scales[1]] * 2]
    assert scales[0] == MotionScale(2.0)
