"""The dataset check tells files that are a frame off, and forward flow, from motion that speeds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import find_scenes, open_scene
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import DEPTH, MOTION
from motion_depth.doctor.check import Settings, check_dataset
from motion_depth.doctor.depth import depth_offset, weigh_edges
from tools.demo.scenes import SceneRenderer, simulate, write

SETTINGS = write.Settings(144, 144, 19, 1, "static")
JOBS = [write.Job(name, 0) for name in ("balls_drop", "block_slides", "domino_rows", "poles_tip", "stack_topples")]
CLIP = 17


@pytest.fixture(scope="module")
def speeding(tmp_path_factory) -> Path:
    """Sound scenes in which everything speeds up."""
    base = tmp_path_factory.mktemp("speeding")
    for job in JOBS:
        write.write_scene(base, job, SETTINGS)
    return base


def rewrite(base: Path, scene: str, target: Path, kind: str | None = None, shift: int = 0, flow=None) -> None:
    """Links a scene's frames but the first and the last, those of one kind from `shift` frames before.

    flow: (frames, H, W, 4), the content of the motion files instead.
    """
    for each, files in open_scene(base, scene).files.items():
        (target / each).mkdir(parents=True)
        for number in sorted(files)[1:-1]:
            source = files[number - (shift if each == kind else 0)]
            path = target / each / f"{number:06d}{source.suffix}"
            if each == MOTION and flow is not None:
                np.save(path, flow[number])
            else:
                path.symlink_to(source.resolve())


def forward_flow(job: write.Job) -> np.ndarray:
    """(frames, H, W, 4): the motion from each frame to the next, at the pixels of the first; 0 in the last frame."""
    recording = simulate(job.name, job.variation, seed=SETTINGS.seed, num_frames=SETTINGS.num_frames, camera="static")
    renderer = SceneRenderer(recording, SETTINGS.height, SETTINGS.width)
    flow = np.zeros((SETTINGS.num_frames, SETTINGS.height, SETTINGS.width, 4), np.float32)
    for frame in range(len(flow) - 1):
        flow[frame, ..., :2] = renderer.motion(frame, frame + 1)[0]
    return flow


def forward(base: Path, target: Path, factors: tuple[float, ...] = (1, 1, 1, 1)) -> Path:
    """All scenes with forward flow times `factors`, (4,)."""
    for job in JOBS:
        scene = (job.folder(base) / "0/0").relative_to(base).as_posix()
        rewrite(base, scene, target / job.name, flow=forward_flow(job) * np.float32(factors))
    return target


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
    wrong, warning = findings(forward(speeding, tmp_path))
    assert (wrong.code, wrong.advice) == ("convention", "Pass --motion_direction forward")
    (alone,) = findings(tmp_path, MotionConvention(direction="forward"))
    assert alone == warning
    assert (warning.severity, warning.code) == ("warning", "forward_flow")
    assert "--motion_direction forward" in warning.message
    assert "Export backward flow" in warning.advice


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


def test_blenders_forward_channels_are_forward_flow_too(speeding, tmp_path):
    """They hold it with the other sign, and y up: read as backward flow with y up."""
    (finding,) = findings(forward(speeding, tmp_path, (-1, 1, 1, 1)), MotionConvention(y_axis="up"))
    assert finding.code == "forward_flow"
    assert "--motion_y_axis up takes these vectors for it" in finding.message
