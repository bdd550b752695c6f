"""A model that predicts inf or NaN is never better than one that predicts numbers, and all that shows it says so."""

import json
import math
from collections.abc import Iterator

import numpy as np
import pandas
import pytest
import torch

from motion_depth.evaluation.report import write_report
from motion_depth.evaluation.scores import not_finite, score_frames, summarise
from motion_depth.files.atomic import finite
from motion_depth.readouts.metrics import finish, prediction_sums
from motion_depth.readouts.targets import Targets
from motion_depth.training import validation
from motion_depth.training.validation import Validation, is_better, score_of
from tests.support.inprocess import must_train
from tests.support.quantities import motion_and_depth
from tests.support.run_inputs import validated_flags
from tests.support.runs import rows
from tools.evaluate import parse_args, write_results

HIGHER_IS_BETTER = {"delta1", "background_iou"}
OF_DEPTH = {"abs_rel", "delta1", "rmse", "silog", "temporal_consistency"}
OF_MOTION = {"epe", "moving_epe", "outlier_1px"}
AFFECTED = {"motion": OF_MOTION, "log_depth": OF_DEPTH, "background_logit": {"background_iou"}}


def clip() -> tuple[Targets, dict[str, torch.Tensor]]:
    """Two frames of 8 x 8 in which everything moves, and predictions that are a little wrong; a corner has no depth."""
    draw = torch.Generator().manual_seed(0)
    motion = 2 + torch.rand(1, 2, 2, 8, 8, generator=draw)
    depth = (2 + 0.01 * torch.rand(1, 2, 8, 8, generator=draw)).clone()
    depth[:, :, :2, :2] = 0
    motion_valid = torch.ones(1, 2, 8, 8, dtype=torch.bool)
    motion_valid[:, 0] = False
    targets = motion_and_depth(motion, motion_valid, depth, depth > 0)
    predictions = {
        "motion": motion + 0.5,
        "log_depth": torch.where(depth > 0, depth, 1.0).log() + 0.05,
        "background_logit": torch.where(depth > 0, -1.0, 1.0),
    }
    return targets, predictions


def metrics_of(targets: Targets, predictions: dict[str, torch.Tensor]) -> dict[str, float | None]:
    return finish({name: float(value.sum()) for name, value in prediction_sums(predictions, targets).items()})


@pytest.mark.parametrize("name", AFFECTED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_no_metric_gets_better_by_it(name, value, everywhere):
    targets, predictions = clip()
    before = metrics_of(targets, predictions)
    spoilt = predictions[name].clone()
    spoilt[(...,) if everywhere else (0, 1, ..., 3, 3)] = value
    after = metrics_of(targets, predictions | {name: spoilt})
    for metric, found in after.items():
        if metric not in AFFECTED[name]:
            assert found == before[metric]
        elif math.isnan(value):
            assert math.isnan(found), metric
        else:
            gain = (found - before[metric]) * (1 if metric in HIGHER_IS_BETTER else -1)
            assert not gain > 0, metric


def test_what_counts_nowhere_may_be_anything():
    targets, predictions = clip()
    before = metrics_of(targets, predictions)
    predictions["motion"][:, 0] = math.nan
    assert metrics_of(targets, predictions) == before


def scored(motion: float = 0.0, depth: float = 0.0) -> list[pandas.DataFrame]:
    """Two clips at two noise levels; what is given is added to the second clip's predictions at noise 1."""
    found = []
    for scene in ("sound", "spoilt"):
        for sigma in (0.5, 1.0):
            targets, predictions = clip()
            if (scene, sigma) == ("spoilt", 1.0):
                predictions["motion"] = predictions["motion"] + motion
                predictions["log_depth"] = predictions["log_depth"] + depth
            keys = {"scene": scene, "window": 0, "sigma": sigma}
            found.append(score_frames(predictions, targets, {"mean_depth": torch.full((8, 8), 1.5)}, keys))
    return found


def test_a_mean_over_clips_leaves_none_out():
    results = summarise(scored(depth=math.nan))
    assert math.isnan(results["overall"]["1.0"]["abs_rel"])
    assert math.isnan(results["per_scene"]["spoilt"]["1.0"]["abs_rel"])
    assert math.isnan(results["per_frame"]["1.0"][0]["abs_rel"])
    for sound in (results["overall"]["0.5"], results["per_scene"]["sound"]["1.0"]):
        assert sound["abs_rel"] == pytest.approx(math.exp(0.05) - 1, rel=1e-3)
    assert "abs_rel at noise 1.0" in not_finite(results["overall"])
    assert not_finite(results["per_scene"]["sound"]) == []


@pytest.mark.parametrize(
    "added", [{"depth": math.nan}, {"motion": math.nan}, {"depth": math.inf}, {"motion": math.inf}]
)
def test_its_score_is_no_number_and_never_the_best(added):
    def score(clips: list[pandas.DataFrame]) -> float:
        return score_of({float(sigma): found for sigma, found in summarise(clips)["overall"].items()})

    bad, good = score(scored(**added)), score(scored())
    assert not math.isfinite(bad)
    assert 0 < good < math.inf
    assert is_better(good, None)
    assert is_better(good, good + 0.1)
    assert not is_better(good, good)
    for best in (None, good, 0.0, bad):
        assert not is_better(bad, best)
    assert is_better(good, bad)  # as an older run may have kept it


@pytest.mark.parametrize("added", [{"depth": math.nan}, {"motion": math.inf}, {}])
def test_the_files_of_an_evaluation_say_so(tmp_path, added):
    flags = ("checkpoint", "model_base_path", "dataset_base_path", "dataset_metadata_path")
    args = parse_args([*(word for name in flags for word in (f"--{name}", "x")), "--output", str(tmp_path)])
    names = ("num_frames", "width", "height", "frame_stride")
    names += ("motion_units", "motion_direction", "motion_y_axis", "motion_frame_offset")
    data = {"settings": {name: {"value": 1, "from": "training"} for name in names}, "check": None}
    results = write_results(args, scored(**added), [], data)
    page, table = (tmp_path / "report.html").read_text(), (tmp_path / "metrics.csv").read_text()
    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert read == finite(results)
    assert ("not finite" in page) == bool(added)
    assert ("nan" in table) == (added == {"depth": math.nan})
    assert ("inf" in table) == (added == {"motion": math.inf})
    if "depth" in added:
        assert read["overall"]["1.0"]["abs_rel"] is None
        assert read["overall"]["0.5"]["abs_rel"] > 0


def test_a_report_without_any_number_is_drawn(tmp_path):
    results = summarise(scored(motion=math.nan, depth=math.nan)[3:])
    write_report(tmp_path / "report.html", results, [], "all NaN", "")
    assert (tmp_path / "report.html").read_text().count("not finite") > 10


def test_a_run_never_keeps_it_as_the_best(tiny_wan, tmp_path, monkeypatch):
    """Depth is NaN before the first iteration and after the last one."""
    rounds, score, read = iter([math.nan, 0.0, math.nan]), Validation.score, validation.read_clip

    def spoilt(self, step: int) -> dict[str, float]:
        added = next(rounds)

        def read_clip(*given: object) -> Iterator[tuple[float, dict[str, torch.Tensor], Targets]]:
            for sigma, found, targets in read(*given):
                yield sigma, found | {"log_depth": found["log_depth"] + added}, targets

        monkeypatch.setattr(validation, "read_clip", read_clip)
        return score(self, step)

    monkeypatch.setattr(Validation, "score", spoilt)
    flags = (*validated_flags(tmp_path, tiny_wan), "--max_steps", 4, "--save_steps", 2)
    done = must_train(*flags, "--output_path", tmp_path / "out")
    assert done.err.count("val/score is not finite: the model predicts inf or NaN; best/ stays as it is") == 2
    for line in (tmp_path / "out/log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    scores = [row["score"] for row in rows(tmp_path / "out") if row.get("group") == "val"]
    assert [score is None for score in scores] == [True, False, True]
    losses = [row["depth_loss/sigma_0.5"] for row in rows(tmp_path / "out") if row.get("group") == "val"]
    assert [loss is None for loss in losses] == [True, False, True]
    best = json.loads((tmp_path / "out/best/config.json").read_text())["training"]
    assert (best["step"], best["best_score"]) == (2, scores[1])
    assert np.isfinite(best["best_score"])
