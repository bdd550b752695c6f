"""The dataset check tells files that are a frame off, and forward flow, from motion that speeds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import find_scenes
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import DEPTH, MOTION
from motion_depth.doctor.check import Settings, check_dataset
from motion_depth.doctor.depth import depth_offset, weigh_edges
from tools.benchmarks import check_accuracy
from tools.benchmarks.check_accuracy import error_of_negation, forward_flow, make_scenes, rewrite, stored_motion
from tools.demo.scenes import write

SETTINGS = write.Settings(144, 144, 19, 1, "static")
JOBS = [write.Job(name, 0) for name in ("balls_drop", "block_slides", "domino_rows", "poles_tip", "stack_topples")]
CLIP = 17


@pytest.fixture(scope="module")
def speeding(tmp_path_factory) -> Path:
    """Sound scenes in which everything speeds up."""
    base = tmp_path_factory.mktemp("speeding")
    make_scenes(base, SETTINGS, JOBS)
    return base


def shifted(base: Path, target: Path, kind: str | None, shift: int, count: int = len(JOBS)) -> Path:
    """All scenes, the first `count` of them with one kind of files shifted."""
    for number, scene in enumerate(find_scenes(base)):
        rewrite(base, scene, target / scene, kind if number < count else None, shift)
    return target


def findings(base: Path, convention: MotionConvention | None = None) -> list[Finding]:
    settings = Settings(num_frames=CLIP, convention=convention or MotionConvention())
    found = check_dataset(base, None, settings, workers=1).findings
    return [each for each in found if each.severity != "note"]


def test_speeding_up_is_no_shift(speeding, tmp_path):
    base = shifted(speeding, tmp_path, None, 0)
    assert findings(base) == []
    assert [findings(base / scene) for scene in find_scenes(base)] == [[]] * len(JOBS)


@pytest.mark.parametrize(
    ("shift", "says"), [(-1, "early: frame t's depth lies in the file of frame t - 1"), (1, "late")]
)
def test_depth_of_another_frame_is_found_in_every_scene(speeding, tmp_path, shift, says):
    base = shifted(speeding, tmp_path, DEPTH, shift)
    (finding,) = findings(base)
    assert (finding.severity, finding.code, finding.scene) == ("error", "depth_offset", "")
    assert finding.message.startswith(f"the depth files are one frame {says}")
    assert f"in {len(JOBS)} of the {len(JOBS)} scenes that tell" in finding.message
    for scene in find_scenes(base):
        (finding,) = findings(base / scene)
        assert (finding.severity, finding.code) == ("warning", "depth_offset")  # nothing agrees with it
        assert f"one frame {says}" in finding.message


@pytest.mark.parametrize(("count", "severity"), [(1, "warning"), (2, "error")])
def test_scenes_that_stand_against_the_others_are_named(speeding, tmp_path, count, severity):
    found = findings(shifted(speeding, tmp_path, DEPTH, -1, count))
    assert [(each.severity, each.code, each.scene) for each in found] == [
        (severity, "depth_offset", scene) for scene in find_scenes(speeding)[:count]
    ]


@pytest.mark.parametrize(("shift", "says"), [(-1, "early"), (1, "late")])
def test_shifted_motion_is_not_blamed_on_depth(speeding, tmp_path, shift, says):
    (finding,) = findings(shifted(speeding, tmp_path, MOTION, shift))
    assert (finding.code, finding.advice) == ("convention", f"Pass --motion_frame_offset {shift}")
    assert f"the motion files are one frame {says}" in finding.message


def test_forward_flow_is_named_and_nothing_else_is_blamed_for_it(speeding, tmp_path):
    shares = check_accuracy.make_forward(speeding, SETTINGS, JOBS, tmp_path)
    assert 0.02 < min(shares) < max(shares) < 0.5
    wrong, warning = findings(tmp_path)
    assert (wrong.code, wrong.advice) == ("convention", "Pass --motion_direction forward")
    (alone,) = findings(tmp_path, MotionConvention(direction="forward"))
    assert alone == warning
    assert (warning.severity, warning.code) == ("warning", "forward_flow")
    assert "--motion_direction forward" in warning.message
    assert "Export backward flow" in warning.advice


def test_negated_forward_flow_is_right_where_motion_is_even(speeding):
    even = np.full((5, 8, 8, 4), 2.0, np.float32)
    assert error_of_negation(-even, even) == 0
    scene = JOBS[0].folder(speeding) / "0/0"
    assert error_of_negation(stored_motion(scene), forward_flow(SETTINGS, JOBS[0])) > 0.02


def test_outlines_of_motion_are_looked_for_in_depth():
    """A square moves right by 3 pixels a frame, and its speed is written at its pixels."""
    motion, depth = {}, {}
    for back in (-1, 0, 1):
        left = 20 - 3 * back
        motion[back], depth[back] = np.zeros((64, 64, 2), np.float32), np.full((64, 64), 5, np.float32)
        motion[back][20:40, left : left + 20, 0], depth[back][20:40, left : left + 20] = -3, 4
    edges = weigh_edges(motion, depth, np.random.default_rng(0))
    assert np.allclose(np.diag(edges), 1)
    assert (edges[~np.eye(3, dtype=bool)] < 0.6).all()  # upper and lower edge overlap
    assert [depth_offset([edges] * 3, offset) for offset in (0, 1, -1)] == [0, 1, -1]
    still = weigh_edges({back: each * 0 for back, each in motion.items()}, depth, np.random.default_rng(0))
    assert np.isnan(still).all()
    assert depth_offset([still] * 3, 0) is None
    assert depth_offset([edges], 0) is None  # one frame


def test_the_tool_shows_a_table_of_ones_own_scenes(speeding, capsys):
    one = JOBS[0].folder(speeding)
    flags = ("--dataset_base_path", one, "--num_frames", CLIP)
    assert check_accuracy.main([str(flag) for flag in flags]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert rows[2] == ["| sound", "1", "-", "0", "-", "none |"]
    assert rows[3] == ["| depth a frame early", "1", "1", "0", "yes", "none |"]


def test_blenders_forward_channels_are_forward_flow_too(speeding, tmp_path):
    """They hold it with the other sign, and y up: read as backward flow with y up."""
    for job in JOBS:
        scene = (job.folder(speeding) / "0/0").relative_to(speeding).as_posix()
        flow = forward_flow(SETTINGS, job) * np.float32([-1, 1, 1, 1])
        rewrite(speeding, scene, tmp_path / job.name, flow=flow)
    (finding,) = findings(tmp_path, MotionConvention(y_axis="up"))
    assert finding.code == "forward_flow"
    assert "--motion_y_axis up takes these vectors for it" in finding.message
