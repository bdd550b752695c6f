"""make_metadata.py --check: what it prints, and the report's page and data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.check import DatasetCheck, Settings, check_dataset
from motion_depth.doctor.report import html, summarise
from tests.support.pages import Page
from tests.support.scene_files import link_files
from tools import make_metadata

EVIL = "a<script>alert(1)</script>&\"'"


def run(base: Path, *flags: object) -> int:
    return make_metadata.main(["--dataset_base_path", str(base), "--workers", "1", *map(str, flags)])


@pytest.fixture(scope="module")
def dataset(demo_scenes, tmp_path_factory) -> Path:
    """Two sound scenes, one of them with a name that a page must escape, and one whose motion is forward."""
    base = tmp_path_factory.mktemp("dataset") / "scenes"
    for scene, name in zip(sorted(demo_scenes.rglob("rgb")), ("one", f"{EVIL}/env_0", "three"), strict=True):
        link_files(scene.parent, base / f"test_{name}")
    for path in (base / "test_three/motion_vectors").iterdir():
        motion = np.load(path)
        path.unlink()
        np.save(path, -motion)
    return base


@pytest.fixture(scope="module")
def checked(dataset) -> DatasetCheck:
    return check_dataset(dataset, None, Settings(num_frames=17), workers=2)


def test_the_page_is_well_formed_needs_nothing_else_and_escapes_names(checked):
    page = Page(html(checked))
    assert page.references
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert page.tags.count("img") == 3  # a picture, motion and depth of each scene
    assert "url(http" not in html(checked).replace(" ", "")
    text = " ".join("".join(page.text).split())
    assert "1 error in 3 scenes." in text
    assert "test_three: its motion follows forward motion in pixels" in text
    assert EVIL.split("/")[0] in text


def test_the_data_say_the_same_and_are_strict_json(checked, dataset, tmp_path):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    assert run(dataset, "--output", tmp_path / "my.csv", "--check", "--num_frames", 17, "--report", tmp_path / "r") == 1
    data = json.loads((tmp_path / "r/report.json").read_text(), parse_constant=refuse)
    assert data["counts"]["error"] == 1
    assert data["convention"]["measured"] == vars(MotionConvention())
    assert [each["code"] for each in data["findings"] if each["severity"] == "error"] == ["convention_differs"]
    assert [each["scene"] for each in data["scenes"]] == [each["scene"] for each in summarise(checked)["scenes"]]
    first = data["scenes"][1]
    assert (first["frames"], first["width"], first["windows"], first["stride"]) == (18, 96, 2, 1)
    assert first["depth_kind"] == "camera"
    assert 0 < first["moving"] < 1
    assert 0 < first["nearest"] < first["median"] < first["farthest"]
    assert list(first["nothing"]) == ["inf"]
    assert [each["stride"] for each in data["strides"]] == [1]
    assert (tmp_path / "r/report.html").stat().st_size > 5_000


def test_it_prints_each_scene_the_convention_and_the_findings(demo_scenes, demo_csv, tmp_path, capsys):
    csv = shutil.copy(demo_csv, tmp_path / "demo.csv")
    assert run(demo_scenes, "--dataset_metadata_path", csv, "--check", "--num_frames", 17) == 0
    printed = capsys.readouterr().out
    for name in ("test_ball_collide", "test_ball_ramp", "test_duck_and_domino"):
        assert re.search(rf"ok +{name}/env_0/0/0 +18 frames +96x96 +2 clips  moving +\d", printed)
    assert "backward motion in pixels, y down, in the file of its frame: the documented convention" in printed
    assert "Nothing is wrong with these 3 scenes." in printed
    assert re.search(r"GB in .* MB/s, 1 processes", printed)
    assert {path.name for path in tmp_path.iterdir()} == {"demo.csv", "demo.check.json"}
    assert csv.read_bytes() == demo_csv.read_bytes()


def test_a_damaged_scene_fails_the_list_but_the_check_says_all(demo_scenes, tmp_path, capsys):
    link_files(demo_scenes, tmp_path / "scenes")
    motion = sorted((tmp_path / "scenes/test_ball_ramp/env_0/0/0/motion_vectors").iterdir())
    motion[4].unlink()
    motion[7].unlink()
    motion[7].write_bytes(b"no array")
    output = tmp_path / "lists/my.csv"
    assert run(tmp_path / "scenes", "--output", output, "--check", "--num_frames", 17) == 2
    printed = capsys.readouterr()
    assert "motion_vectors: frame 4 is missing" in printed.out
    assert "motion_vectors_0007.npy: not readable" in printed.out
    assert printed.err.startswith("error: 1 of 3 scenes cannot be used")
    assert not output.exists()


def test_scenes_too_short_for_a_clip_still_give_a_page(demo_scenes, demo_csv, tmp_path, capsys):
    csv = shutil.copy(demo_csv, tmp_path / "demo.csv")
    flags = ("--dataset_metadata_path", csv, "--check", "--num_frames", 49, "--report", tmp_path / "r")
    assert run(demo_scenes, *flags) != 0
    printed = capsys.readouterr().out
    assert printed.count("expected at least 49") == 1
    assert "--num_frames 17 fits all 3 scenes" in printed
    assert printed.count("ERROR test_") == 3
    page = (tmp_path / "r/report.html").read_text()
    assert "expected at least 49" in page
    assert page.count('<span class="badge error">too short</span>') == 3


@pytest.mark.parametrize("rows", ["", "video,prompt\n", "video,prompt\ntest_gone,A ball is gone.\n"])
def test_a_list_of_no_scene_gives_a_page_too(demo_scenes, tmp_path, rows):
    (tmp_path / "my.csv").write_text(rows)
    flags = ("--dataset_metadata_path", tmp_path / "my.csv", "--check", "--report", tmp_path / "r")
    assert run(demo_scenes, *flags) == 1
    Page((tmp_path / "r/report.html").read_text())


def test_a_stride_says_for_how_many_scenes_it_holds(demo_scenes, tmp_path, capsys):
    link_files(demo_scenes, tmp_path / "scenes")
    for path in (tmp_path / "scenes/test_ball_ramp").rglob("*_001?.*"):
        path.unlink()
    assert run(tmp_path / "scenes", "--output", tmp_path / "my.csv", "--check", "--num_frames", 17) == 1
    assert "(in 2 of 3 scenes; others are too short, or still)" in capsys.readouterr().out
    assert run(tmp_path / "scenes", "--output", tmp_path / "my.csv", "--check", "--num_frames", 9) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(", or still)") for line in lines if line.startswith("stride ")] == [False, True]


def test_the_csv_alone_decides_which_scenes_are_checked(demo_scenes, tmp_path, capsys):
    csv = tmp_path / "one.csv"
    csv.write_text("video,prompt\ntest_ball_ramp/env_0/0/0,A ball rolls down.\ntest_gone/env_0,A ball is gone.\n")
    assert run(demo_scenes, "--dataset_metadata_path", csv, "--check", "--num_frames", 17) == 1
    printed = capsys.readouterr().out
    assert "test_gone/env_0: there is no such scene folder" in printed
    assert "2 scenes are not in the CSV and were not checked: test_ball_collide/env_0/0/0" in printed


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "give one of --output"),
        (("--output", "a.csv", "--dataset_metadata_path", "b.csv"), "give one of --output"),
        (("--dataset_metadata_path", "b.csv"), "--dataset_metadata_path: needs --check"),
        (("--output", "a.csv", "--report", "r"), "--report: needs --check"),
        (("--dataset_metadata_path", "b.csv", "--check"), "b.csv: not readable, expected a CSV"),
        (("--output", "a.csv", "--check", "--num_frames", 16), "--num_frames: found 16, expected 4k+1"),
        (("--output", "a.csv", "--check", "--frame_stride", "two"), "--frame_stride: found two"),
        (("--output", "a.csv", "--check", "--motion_units", "metres"), "--motion_units: found 'metres'"),
    ],
)
def test_what_cannot_be_done_is_one_line(demo_scenes, tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    assert run(demo_scenes, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
