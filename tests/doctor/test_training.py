"""From the dataset check to training: what was measured decides which flags training accepts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.inprocess import must_train, refused, train
from tests.support.runs import ROOT, SMALL, run_python

SCENES = ("test_ball_collide", "test_duck_and_domino")
MEASURED = ("--motion_direction", "forward", "--motion_y_axis", "up")


@pytest.fixture(scope="module")
def checked(demo_scenes, tmp_path_factory) -> Path:
    """Demo scenes whose x has the other sign: forward motion with y up. Listed, and checked with no flag."""
    root = tmp_path_factory.mktemp("checked")
    for name in SCENES:
        shutil.copytree(demo_scenes / name, root / "scenes" / name)
        for path in (root / "scenes" / name).rglob("motion_vectors/*.npy"):
            np.save(path, np.load(path) * np.float32([-1, 1, 1, 1]))
    done = run_python(ROOT / "tools/make_metadata.py", *listing(root), "--check", "--num_frames", 5, "--workers", 1)
    assert done.returncode == 1, done.stderr  # it is not what the flags say
    assert f"Pass {' '.join(MEASURED)}" in done.stdout
    return root


def listing(root: Path) -> tuple[object, ...]:
    return "--dataset_base_path", root / "scenes", "--output", root / "my.csv"


def argv(root: Path, model: Path, output: Path, *flags: object) -> list[object]:
    return [
        *("--stage", 1, "--dataset_base_path", root / "scenes", "--dataset_metadata_path", root / "my.csv"),
        *("--model_base_path", model, *SMALL, "--max_steps", 1, "--save_steps", 0, "--output_path", output, *flags),
    ]


def test_training_refuses_flags_that_the_check_has_ruled_out(checked, tiny_wan, tmp_path):
    said = refused(*argv(checked, tiny_wan, tmp_path / "out"), unchanged=checked)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert f"{checked / 'my.csv'}: the check of this dataset ({checked / 'my.check.json'}, " in said
    assert f"Pass {' '.join(MEASURED)}; or --trust_data" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "says"), [(MEASURED, False), (("--trust_data",), True)])
def test_training_goes_on_with_the_measured_flags_or_on_request(checked, tiny_wan, tmp_path, flags, says):
    done = must_train(*argv(checked, tiny_wan, tmp_path / "out", *flags))
    assert (tmp_path / "out/final/motion_head.safetensors").is_file()
    assert ("--trust_data: " in done.out + done.err) == says


def test_training_says_in_one_line_that_the_check_found_errors(demo_scenes, tiny_wan, tmp_path):
    for name in SCENES:
        shutil.copytree(demo_scenes / name, tmp_path / "scenes" / name)
    for path in sorted((tmp_path / "scenes" / SCENES[0]).rglob("distance_to_camera/*.npy")):
        np.save(path, np.zeros_like(np.load(path)))
    run_python(ROOT / "tools/make_metadata.py", *listing(tmp_path), "--check", "--num_frames", 17, "--workers", 1)
    done = train(*argv(tmp_path, tiny_wan, tmp_path / "out"))
    (line,) = [line for line in (done.out + done.err).splitlines() if "the check of this dataset" in line]
    assert line.startswith(f"warning: {tmp_path / 'my.csv'}: the check of this dataset ({tmp_path / 'my.check.json'}, ")
    assert f"found an error: {tmp_path / 'scenes' / SCENES[0]}" in line
    assert "no file holds a valid distance" in line
    # A list without that scene has nothing wrong with it.
    text = (tmp_path / "my.csv").read_text().splitlines(keepends=True)
    (tmp_path / "my_other.csv").write_text("".join(line for line in text if SCENES[0] not in line))
    flags = ("--dataset_metadata_path", tmp_path / "my_other.csv")
    done = must_train(*argv(tmp_path, tiny_wan, tmp_path / "other", *flags))
    assert "the check of this dataset" not in done.out + done.err
