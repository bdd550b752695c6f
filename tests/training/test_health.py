"""Updates that must not be made, and gradients far above what they were."""

import json
import math

import pytest
import torch
from accelerate import Accelerator

from motion_depth.clips.batch import Batch
from motion_depth.training.health import ENOUGH, Clips, Health, gradient_size
from motion_depth.training.log import RunLog

NAN, INF = math.nan, math.inf


def clips(losses: list[float], gradients: list[float] | None = None) -> Clips:
    count = len(losses)
    return Clips(list(range(count)), [0.5] * count, gradients or [1.0] * count, {"loss": losses})


@pytest.fixture
def health() -> Health:
    return Health(2, lambda position: f"clip {position}")


def test_a_good_update_is_made(health):
    assert health.problem(clips([1.0, 2.0]), 3.0) is None
    assert (health.skipped, health.in_row, health.diverged) == (0, 0, False)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_clip_with_the_bad_loss_is_named(health, bad):
    assert "the loss is not finite for clip 1 at sigma 0.500 (1 in a row" in health.problem(clips([1, bad, 2]), 1.0)


def test_a_bad_gradient_names_the_clips_from_which_on_it_is_bad(health):
    problem = health.problem(clips([1, 1, 1], [1.0, NAN, NAN]), NAN)
    assert "the gradient is not finite from clip 1 at sigma 0.500; clip 2" in problem
    assert "clip 0" not in problem


def test_a_norm_that_overflows_names_all(health):
    assert "clip 0 at sigma 0.500; clip 1" in health.problem(clips([1, 1]), INF)


def test_bad_updates_in_a_row_end_the_run_and_a_good_one_begins_anew(health):
    health.problem(clips([NAN]), 1.0)
    health.problem(clips([1.0]), 1.0)
    health.problem(clips([NAN]), 1.0)
    assert not health.diverged
    health.problem(clips([NAN]), 1.0)
    assert (health.diverged, health.skipped) == (True, 3)
    assert not Health(0, str, in_row=100).diverged


def test_a_norm_far_above_its_median_is_told_and_survives_a_checkpoint(health):
    assert [health.spike(norm) for norm in [1.0, 500.0, *[2.0] * ENOUGH]] == [None] * (ENOUGH + 2)
    other = Health(2, str, **json.loads(json.dumps(health.state())))
    assert other.spike(19.0) is None
    assert other.spike(40.0) == 20.0


def test_gradient_size_is_finite_exactly_if_all_gradients_are():
    parameters = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.ones(2), torch.tensor([1e30, 3.0])
    assert gradient_size(parameters).isfinite()
    for bad in (NAN, INF):
        parameters[0].grad[1] = bad
        assert not gradient_size(parameters).isfinite()


def test_a_row_is_the_mean_over_the_clips_of_an_update_in_the_order_of_the_sequence(tmp_path):
    accelerator = Accelerator(cpu=True)
    batch = [Batch(*[None] * 4, torch.tensor([0.25]), None, [position], ["s"]) for position in (2, 1)]
    log = RunLog(accelerator, tmp_path, 4, 0)
    log.add(batch[0], {"loss": torch.tensor([2.0])}, torch.tensor(1.0))
    log.add(batch[1], {"loss": torch.tensor([4.0])}, torch.tensor(1.0))
    found = log.collect()
    assert (found.positions, found.losses) == ([1, 2], {"loss": [4.0, 2.0]})
    log.write(2, found, lr=1.0)
    log.event(2, "hm", skipped_updates=1)
    log.close()
    row, event = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (row["loss"], row["step"]) == (3.0, 2)
    assert event == {"step": 2, "group": "health", "skipped_updates": 1, "message": "hm"}
    assert log.rows == []
