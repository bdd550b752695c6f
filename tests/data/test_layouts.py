"""Another layout is a file of its own and a line in the table: everything else reads its scenes as it reads ours."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from motion_depth.clips.dataset import create_motion_data_operator
from motion_depth.data.layouts import LAYOUTS, find_scenes, open_scene
from tests.support import npz_layout
from tests.support.inprocess import must_train
from tests.support.runs import rows
from tests.support.scene_files import gliding, make_operator, same, write_scene
from tests.support.tool_runs import run_evaluate
from tools import make_metadata

SCENES = {"tests/ball.npz": 2, "ramp.npz": 1}  # pixels that they glide a frame


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """Two scenes in .npz files, and the same two as Isaac Sim lays them out, in another folder."""
    monkeypatch.setitem(LAYOUTS, "npz", npz_layout)
    for name, step in SCENES.items():
        rgb, motion, depth = gliding(12, 64, 64, step)
        path = tmp_path / "npz" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, rgb=rgb, motion=motion, depth=depth)
        write_scene(tmp_path / "isaac" / name, rgb, motion, depth)
    return tmp_path / "npz"


def test_its_scenes_are_found_beside_others_and_give_the_same_clips(base):
    isaac = base.parent / "isaac"
    shutil.copytree(isaac / "ramp.npz", base / "isaac_ramp")
    assert find_scenes(base) == ["isaac_ramp", "ramp.npz", "tests/ball.npz"]
    ours, theirs = make_operator(base, 64, 64), make_operator(isaac, 64, 64)
    for name in SCENES:
        assert same(ours((name, 1)), theirs((name, 1)))
        assert ours.scene(name).files["rgb"] == dict.fromkeys(range(12), base / name)


def test_metadata_check_training_and_evaluation_read_them(base, tmp_path, tiny_wan, capsys):
    listed = tmp_path / "npz.csv"
    flags = ["--dataset_base_path", str(base), "--output", str(listed)]
    make_metadata.main([*flags, "--check", "--num_frames", "5", "--report", str(tmp_path / "report")])
    said = capsys.readouterr().out
    assert all(re.search(rf"^ok +{name} +12 frames +64x64 +4 clips +moving 100", said, re.MULTILINE) for name in SCENES)
    assert "error" not in said
    with listed.open() as file:
        assert [row["video"] for row in csv.DictReader(file)] == ["ramp.npz", "tests/ball.npz"]
    logs = []
    for layout in ("npz", "isaac"):
        data = ["--dataset_base_path", base.parent / layout, "--dataset_metadata_path", listed]
        model = ["--model_base_path", tiny_wan, "--height", 64, "--width", 64, "--num_frames", 5]
        must_train("--stage", 1, *data, *model, "--head_size", "small", "--max_steps", 2, "--save_steps", 2,
                     "--mixed_precision", "no", "--dataset_num_workers", 0, "--gradient_accumulation_steps", 1,
                     "--cache_path", tmp_path / "cache" / layout, "--output_path", tmp_path / layout)  # fmt: skip
        logs.append([{name: row[name] for name in row if "loss" in name} for row in rows(tmp_path / layout)])
    assert logs[0] == logs[1]
    assert len(logs[0][0]) > 2
    found = run_evaluate("--checkpoint", tmp_path / "npz/final", *data[:1], base, *data[2:], *model[:2],
                         "--output", tmp_path / "evaluation", "--noise_levels", 0.1, "--pictures", 1)  # fmt: skip
    assert found["overall"]["0.1"]["epe"] > 0


def test_what_is_wrong_with_one_is_said_by_its_file(base):
    with pytest.raises(ValueError, match=r"/none.npz: there is no such scene folder"):
        open_scene(base, "none.npz")
    (base / "broken.npz").write_text("hello")
    (base / "folder").mkdir()
    with pytest.raises(ValueError, match=r"/folder: is no scene; a scene is a folder that .*, or an \.npz file with"):
        open_scene(base, "folder")
    with pytest.raises(ValueError, match=r"/broken.npz: not readable, expected an .npz file with"):
        open_scene(base, "broken.npz")
    rgb, motion, depth = gliding(5, 64, 64, 1)
    for change, message in (
        ({"depth": depth[1:]}, "found arrays of different lengths"),
        ({"depth": depth.astype(np.uint16)}, "found type uint16, expected float32"),
        ({"motion": motion[:, 1:]}, "found 63 x 64 .height x width., expected 64 x 64"),
        ({"rgb": rgb[..., :2]}, r"found an array of shape \(64, 64, 2\), expected \(64, 64, 3\)"),
    ):
        np.savez(base / "bad.npz", **{"rgb": rgb, "motion": motion, "depth": depth} | change)
        with pytest.raises(ValueError, match=f"/bad.npz: {message}"):
            create_motion_data_operator(base, 64, 64, 5)("bad.npz")
