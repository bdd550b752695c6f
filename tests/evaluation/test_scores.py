"""Evaluation of a trained run, validation while training, and training from the cache."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.pages import Page
from tests.support.runs import ROOT, SCRIPT, SMALL, must_run, rows, weights
from tools.evaluate import evaluate, parse_args

EVALUATE = ROOT / "tools/evaluate.py"


@pytest.fixture(scope="session")
def evaluation(stage2, data_flags, tmp_path_factory):
    """The stage-2 run evaluated at two noise levels, with its LoRA."""
    output = tmp_path_factory.mktemp("evaluation") / "first"
    must_run(EVALUATE, "--checkpoint", stage2 / "final", *data_flags, "--output", output, "--noise_levels", 0.02, 1.0)
    return output


def test_metrics_stand_beside_their_baselines(evaluation):
    results = json.loads((evaluation / "metrics.json").read_text())
    assert list(results["overall"]) == ["0.02", "1.0"]
    expected = {"abs_rel", "abs_rel_baseline", "delta1", "rmse", "silog", "epe", "epe_baseline", "moving_epe",
                "moving_epe_baseline", "moving_epe_constant_velocity", "outlier_1px", "background_iou",
                "temporal_consistency"}  # fmt: skip
    assert expected <= results["overall"]["0.02"].keys()
    assert len(results["per_scene"]) == 3
    for found in results["per_scene"].values():
        assert found.keys() == results["overall"].keys()
    assert len(results["per_frame"]["1.0"]) == 5
    assert results["per_frame"]["1.0"][0]["epe"] is None  # frame 0 has no motion
    # Baselines do not depend on the noise, and pixels are counted once however they are grouped.
    assert results["overall"]["0.02"]["abs_rel_baseline"] == results["overall"]["1.0"]["abs_rel_baseline"]
    assert results["overall"]["0.02"]["abs_rel"] != results["overall"]["1.0"]["abs_rel"]


def test_the_same_command_gives_the_same_metrics(evaluation, stage2, data_flags):
    again = evaluation.parent / "again"
    must_run(EVALUATE, "--checkpoint", stage2 / "final", *data_flags, "--output", again, "--noise_levels", 0.02, 1.0,
             "--pictures", 0)  # fmt: skip
    assert (again / "metrics.json").read_bytes() == (evaluation / "metrics.json").read_bytes()
    assert not (again / "pictures").exists()


def test_the_report_is_one_page_with_pictures(evaluation):
    page = Page((evaluation / "report.html").read_text())
    pictures = sorted((evaluation / "pictures").iterdir())
    assert len(pictures) == 3 * 2
    assert page.tags.count("img") == len(page.references) == 2 + len(pictures)  # so there is no link
    assert all(source.startswith("data:image/png;base64,") for source in page.references)
    assert np.asarray(Image.open(pictures[0])).std() > 10


def test_evaluation_errors_are_one_line(stage1, data_flags, tmp_path, evaluation):
    damaged = tmp_path / "damaged"
    shutil.copytree(stage1 / "final", damaged)
    (damaged / "depth_head.safetensors").write_bytes(b"x")
    cases = [
        (["--checkpoint", tmp_path / "none", "--output", tmp_path / "o"], "no such checkpoint folder"),
        (["--checkpoint", damaged, "--output", tmp_path / "o"], "depth_head.safetensors: 1 bytes"),
        (["--checkpoint", stage1 / "final", "--output", evaluation], "is not empty"),
        (["--checkpoint", stage1 / "final", "--output", tmp_path / "o", "--noise_levels", 2], "--noise_levels 2.0"),
    ]
    for flags, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate(parse_args([*map(str, data_flags), *map(str, flags)]))
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="session")
def validated(demo_scenes, demo_csv, tiny_wan, tmp_path_factory):
    """The run of `stage1`, from a cache and with validation on the CSV's last scene; two scenes to train on."""
    folder = tmp_path_factory.mktemp("validated")
    header, *scenes = demo_csv.read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([header, *scenes[:2]]) + "\n")
    (folder / "val.csv").write_text("\n".join([header, *scenes[2:]]) + "\n")
    flags = ["--stage", 1, *SMALL, "--dataset_base_path", demo_scenes, "--dataset_metadata_path", folder / "train.csv",
             "--model_base_path", tiny_wan, "--max_steps", 4, "--save_steps", 0]  # fmt: skip
    held_out = ["--val_metadata_path", folder / "val.csv", "--val_steps", 2]
    must_run(SCRIPT, *flags, "--output_path", folder / "plain")
    must_run(SCRIPT, *flags, "--output_path", folder / "with", "--cache_path", folder / "cache", *held_out)
    return folder


def test_validation_and_the_cache_leave_training_as_it_is(validated):
    plain, observed = weights(validated / "plain/final"), weights(validated / "with/final")
    assert all(torch.equal(plain[name], observed[name]) for name in plain)
    training = [row["loss"] for row in rows(validated / "with") if row.get("group") is None]
    assert training == [row["loss"] for row in rows(validated / "plain")]


def test_validation_writes_metrics_pictures_and_the_best_checkpoint(validated):
    scores = [row for row in rows(validated / "with") if row.get("group") == "val"]
    assert [row["step"] for row in scores] == [0, 2, 4]
    assert all(f"abs_rel/sigma_{level}" in scores[0] for level in ("0.02", "0.25", "0.5", "0.75", "1.0"))
    assert "depth_loss/sigma_0.5" in scores[0]
    names = {path.name for path in (validated / "with/validation").iterdir()}
    assert names == {f"step-{step}.{kind}" for step in (0, 2, 4) for kind in ("png", "mp4")}
    best = json.loads((validated / "with/best/config.json").read_text())["training"]
    assert best["best_score"] == min(row["score"] for row in scores)
