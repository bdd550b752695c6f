"""A third quantity is one file: it trains, is validated and evaluated, and shows, with a line in the table."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from motion_depth.data.layouts import open_scene
from motion_depth.pictures.media import read_video
from tests.support.runs import ROOT, SCRIPT, must_run, rows
from tests.support.scene_files import plain_scene
from tests.support.surface_normals import write_normals

SIZE = [*("--height", 64, "--width", 96, "--num_frames", 5)]


def run_with_normals(program: Path, *flags: object) -> subprocess.CompletedProcess:
    return must_run("-m", "tests.support.surface_normals", program, *flags, PYTHONPATH=str(ROOT))


@pytest.fixture(scope="module")
def run(tiny_wan, tmp_path_factory):
    """A folder with scenes a and b that have normals, and a run of 4 iterations on a, validated on b."""
    folder = tmp_path_factory.mktemp("normals")
    for scene in ("a", "b"):
        write_normals(plain_scene(folder / "data" / scene))
        (folder / f"{scene}.csv").write_text(f"video,prompt\n{scene},A wall.\n")
    run_with_normals(
        *(SCRIPT, "--stage", 1, "--dataset_base_path", folder / "data"),
        *("--dataset_metadata_path", folder / "a.csv", "--val_metadata_path", folder / "b.csv", *SIZE),
        *("--model_base_path", tiny_wan, "--head_size", "small", "--mixed_precision", "no", "--max_steps", 4),
        *("--dataset_num_workers", 0, "--gradient_accumulation_steps", 1, "--lr_warmup_steps", 0, "--save_steps", 0),
        *("--learning_rate", 1e-3, "--normals_loss_weight", 2.0, "--cache_path", folder / "cache"),
        *("--output_path", folder / "out"),
    )
    return folder


def test_it_is_trained_beside_the_others_and_has_a_head_of_its_own(run):
    losses = [row for row in rows(run / "out") if row.get("group") is None]
    assert losses[0]["normals_loss"] == losses[0]["normals_cosine"] == pytest.approx(1, abs=1e-3)
    assert losses[-1]["normals_loss"] < losses[0]["normals_loss"]
    for row in losses:
        whole = row["motion_loss"] + row["depth_loss"] + 2 * row["normals_loss"]
        assert row["loss"] == pytest.approx(whole, rel=1e-5)
    assert load_file(run / "out/final/normals_head.safetensors")["decoder.out.weight"].any()
    config = json.loads((run / "out/final/config.json").read_text())
    assert config["statistics"]["scales"]["normals"] == pytest.approx(0.2, rel=1e-3)
    assert config["normals"].startswith("unit vectors")


def test_it_is_validated_and_has_a_row_in_the_panel(run):
    first, *_, last = (row for row in rows(run / "out") if row.get("group") == "val")
    assert first["normal_degrees/sigma_0.25"] == pytest.approx(np.degrees(np.arccos(0.8)), rel=1e-3)
    assert first["normal_degrees_baseline/sigma_0.25"] == first["normal_degrees/sigma_0.25"]
    assert last["normal_degrees/sigma_0.25"] < first["normal_degrees/sigma_0.25"]
    assert first["score"] != last["score"]
    true_normal = ((np.array([0.6, 0, -0.8]) + 1) * 127.5).astype(np.uint8)
    panel = np.asarray(Image.open(run / "out/validation/step-4.png"))
    assert (panel == true_normal).all(axis=-1).sum() > 1000
    assert read_video(run / "out/validation/step-4.mp4").shape[0] == 5


def test_it_is_evaluated_with_its_metric_and_its_column_in_the_report(run, tiny_wan):
    done = run_with_normals(
        *(ROOT / "tools/evaluate.py", "--checkpoint", run / "out/final"),
        *("--model_base_path", tiny_wan, "--dataset_base_path", run / "data", "--dataset_metadata_path", run / "b.csv"),
        *("--output", run / "evaluation", "--noise_levels", 0.25, "--pictures", 1),
    )
    assert "normals (towards the camera)" in done.stdout
    metrics = json.loads((run / "evaluation/metrics.json").read_text())["overall"]["0.25"]
    assert 0 < metrics["normal_degrees"] < metrics["normal_degrees_baseline"]
    assert "<th>normal_degrees</th>" in (run / "evaluation/report.html").read_text()


def test_it_is_generated_too(run, tiny_wan):
    run_with_normals(
        *(ROOT / "tools/generate.py", "--checkpoint", run / "out/final"),
        *("--model_base_path", tiny_wan, "--dataset_base_path", run / "data", "--scene", "b", "--prompt", "A wall."),
        *("--reread", "--output", run / "reread"),
    )
    with np.load(run / "reread/normals.npz") as file:
        assert np.linalg.norm(file["normals"], axis=1) == pytest.approx(1, abs=1e-3)
    assert (run / "reread/normals.mp4").is_file()


def test_a_scene_without_it_is_an_error_that_names_it(run, tmp_path):
    shutil.copytree(run / "data/a", tmp_path / "a")
    (tmp_path / "a/normals/0003.npy").unlink()
    with pytest.raises(ValueError, match="/a/normals: frame 3 is missing, which rgb has"):
        open_scene(tmp_path, "a", ["normals"])
    shutil.rmtree(tmp_path / "a/normals")
    with pytest.raises(ValueError, match="/a: holds rgb, motion_vectors, distance_to_camera but not normals"):
        open_scene(tmp_path, "a", ["normals"])
