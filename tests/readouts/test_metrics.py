"""Metrics against values worked out by hand."""

import math

import pytest
import torch

from motion_depth.readouts.metrics import baseline_sums, finish, prediction_sums
from motion_depth.readouts.targets import Targets
from tests.support.quantities import motion_and_depth


def totals(sums: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value.sum()) for name, value in sums.items()}


def scene() -> tuple[Targets, dict[str, torch.Tensor]]:
    """Two frames of 1 x 3 pixels; the last pixel has no depth, the middle one moves by (3, 4) in frame 1."""
    motion = torch.zeros(1, 2, 2, 1, 3)
    motion[0, 1, :, 0, 1] = torch.tensor([3.0, 4.0])
    motion_valid = torch.tensor([[[[False] * 3], [[True, True, False]]]])
    depth = torch.tensor([2.0, 4.0, 0.0]).expand(1, 2, 1, 3).clone()
    targets = motion_and_depth(motion, motion_valid, depth, depth > 0)
    predictions = {
        "motion": torch.zeros(1, 2, 2, 1, 3),
        "log_depth": torch.tensor([1.0, 5.0, 9.0]).log().expand(1, 2, 1, 3).clone(),
        "background_logit": torch.tensor([-1.0, 1.0, 1.0]).expand(1, 2, 1, 3),
    }
    predictions["motion"][0, 1, 0, 0, 0] = 2.0
    return targets, predictions


def test_all_metrics_by_hand():
    targets, predictions = scene()
    metrics = finish(totals(prediction_sums(predictions, targets)))
    assert metrics["abs_rel"] == pytest.approx((0.5 + 0.25) / 2)
    assert metrics["delta1"] == 0.0  # 1 against 2, and 5 against 4, which is not below the factor 1.25
    assert metrics["rmse"] == pytest.approx(1.0)
    logs = [math.log(0.5), math.log(1.25)]
    mean = sum(logs) / 2
    assert metrics["silog"] == pytest.approx(100 * math.sqrt(sum(g * g for g in logs) / 2 - mean**2), rel=1e-4)
    assert metrics["epe"] == pytest.approx((2 + 5) / 2)
    assert metrics["moving_epe"] == pytest.approx(5)
    assert metrics["outlier_1px"] == 1.0
    assert metrics["background_iou"] == pytest.approx(1 / 2)


def test_means_weigh_pixels_not_frames():
    targets, predictions = scene()
    sums = prediction_sums(predictions, targets)
    assert sums["motion_pixels"].tolist() == [[0.0, 2.0]]
    assert sums["depth_pixels"].tolist() == [[2.0, 2.0]]
    assert finish({name: float(value[0, 0]) for name, value in sums.items()})["epe"] is None


def test_temporal_consistency_sees_flicker_and_not_bias():
    torch.manual_seed(0)
    depth = 2 + torch.rand(1, 3, 8, 8)[:, :1].expand(1, 3, 8, 8)
    everywhere = torch.ones(1, 3, 8, 8, dtype=torch.bool)
    targets = motion_and_depth(torch.zeros(1, 3, 2, 8, 8), everywhere, depth, everywhere)

    def score(log_depth: torch.Tensor) -> float:
        predictions = {
            "motion": torch.zeros(1, 3, 2, 8, 8),
            "log_depth": log_depth,
            "background_logit": torch.zeros_like(depth),
        }
        return finish(totals(prediction_sums(predictions, targets)))["temporal_consistency"]

    assert score(depth.log() + 0.7) == pytest.approx(0, abs=1e-6)
    flicker = torch.tensor([0.0, 0.1, 0.0])[None, :, None, None]
    assert score(depth.log() + flicker) == pytest.approx(0.1, rel=1e-4)


def test_temporal_consistency_follows_the_motion():
    log_depth = torch.zeros(1, 2, 1, 4)
    log_depth[0, 0] = torch.tensor([0.1, 0.11, 0.12, 0.13])
    log_depth[0, 1] = torch.tensor([0.0, 0.1, 0.11, 0.12])  # the same surface, one pixel further right
    motion = torch.zeros(1, 2, 2, 1, 4)
    motion[:, 1, 0] = -1.0
    everywhere = torch.ones(1, 2, 1, 4, dtype=torch.bool)
    targets = motion_and_depth(motion, everywhere, log_depth.exp(), everywhere)
    predictions = {"motion": motion, "log_depth": log_depth + 1, "background_logit": torch.zeros(1, 2, 1, 4)}
    sums = totals(prediction_sums(predictions, targets))
    assert sums["temporal_pixels"] == 3  # the pixel that came in from outside is left out
    assert sums["temporal_error"] == pytest.approx(0, abs=1e-5)


def test_baselines():
    targets, _ = scene()
    sums = baseline_sums(targets, {"mean_depth": torch.tensor([[2.0, 2.0, 2.0]])})
    metrics = finish(totals(sums["baseline"]))
    assert metrics["abs_rel"] == pytest.approx(0.25)
    assert metrics["moving_epe"] == pytest.approx(5)
    assert finish(totals(sums["constant_velocity"]))["moving_epe"] == pytest.approx(5)  # nothing moved before
    moving = baseline_sums(targets.take(torch.tensor([[1, 1]])), {"mean_depth": torch.ones(1, 3)})["constant_velocity"]
    assert finish(totals(moving))["moving_epe"] == pytest.approx(2.5)
