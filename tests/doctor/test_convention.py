"""The dataset check tells motion conventions apart from the pictures alone, and says when it cannot."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from motion_depth.clips.dataset import create_motion_data_operator
from motion_depth.data.findings import Finding
from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.check import Settings, check_dataset
from motion_depth.doctor.convention import flags, judge
from motion_depth.doctor.measure import measure_scene
from motion_depth.doctor.photometry import CANDIDATES, OFFSETS
from motion_depth.doctor.report import summarise
from tests.support.runs import ROOT, must_run
from tests.support.scene_files import gliding, write_scene

MOVING_SHARE = 0.02  # scenes in which fewer pixels move need not be told
EIGHT = [
    MotionConvention(units, direction, y_axis)
    for units, direction, y_axis in itertools.product(("pixels", "normalized"), ("backward", "forward"), ("down", "up"))
]


def make_scenes(folder: Path, size: int, frames: int, camera: str, *names: str) -> Path:
    shape = ("--height", size, "--width", size, "--num_frames", frames)
    must_run(ROOT / "tools/demo/make_scenes.py", "--output", folder, *shape, "--camera", camera, "--scenes", *names)
    return folder


@pytest.fixture(scope="module")
def orbit_scenes(tmp_path_factory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("orbit"), 96, 18, "orbit", "ball_hits_nothing", "duck_falls_in_box")


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("large"), 480, 12, "static", "ball_hits_duck")


def scenes_of(base: Path) -> list[Path]:
    return sorted(path.parent for path in base.rglob("rgb"))


def findings(base: Path, num_frames: int, convention: MotionConvention | None = None) -> list[Finding]:
    settings = Settings(num_frames, convention=convention or MotionConvention())
    return check_dataset(base, None, settings, workers=1).findings


def rewrite(source: Path, target: Path, convention: MotionConvention, noise: float = 0.0) -> Path:
    """A copy of a scene with its motion, which is in the documented convention, in another one."""
    rng = np.random.default_rng(0)
    for kind in ("rgb", "distance_to_camera"):
        shutil.copytree(source / kind, target / kind, copy_function=lambda a, b: Path(b).hardlink_to(a))
    (target / "motion_vectors").mkdir()
    motion = [np.load(path) for path in sorted((source / "motion_vectors").iterdir())]
    scale = np.float32([*convention.scale(*motion[0].shape[:2]), 1, 1])
    for number in range(len(motion)):
        frame = motion[min(max(number - convention.frame_offset, 0), len(motion) - 1)] / scale
        np.save(target / f"motion_vectors/{number}.npy", frame + rng.normal(0, noise, frame.shape).astype(np.float32))
    return target


@pytest.mark.parametrize("scenes", ["demo_scenes", "orbit_scenes", "large_scene"])
@pytest.mark.parametrize("convention", EIGHT, ids=lambda each: flags(each) or "documented")
def test_eight_conventions_are_told_apart_in_every_scene(request, tmp_path, scenes, convention):
    for source in scenes_of(request.getfixturevalue(scenes)):
        measure = measure_scene(tmp_path, rewrite(source, tmp_path / source.parts[-4], convention).name)
        assert measure.table[f"moving_{convention.units}"].mean() > MOVING_SHARE
        verdict = judge([measure.evidence])
        assert verdict.convention == convention, source
        assert convention in verdict.fitting
        assert verdict.explained > verdict.next_best > 0


# Files that are a frame late or early; and rounding noise in what rests, which is no motion.
@pytest.mark.parametrize(
    ("convention", "noise"),
    [(MotionConvention(units, frame_offset=offset), 0) for units in ("pixels", "ndc") for offset in (1, -1)]
    + [(MotionConvention(direction="forward"), 1e-6)],
)
def test_further_conventions_are_told_in_every_scene(demo_scenes, tmp_path, convention, noise):
    for source in scenes_of(demo_scenes):
        measure = measure_scene(tmp_path, rewrite(source, tmp_path / source.parts[-4], convention, noise).name)
        assert judge([measure.evidence]).convention == convention, source


def test_candidates_are_all_conventions_and_begin_with_the_documented_one():
    assert len(set(CANDIDATES)) == 3 * 2 * 2 * len(OFFSETS)
    assert CANDIDATES[0] == MotionConvention()


def test_the_finding_says_which_flags_to_pass(demo_scenes, tmp_path):
    convention = MotionConvention("normalized", "forward", "up", 1)
    for source in scenes_of(demo_scenes):
        rewrite(source, tmp_path / source.parts[-4], convention)
    (finding,) = findings(tmp_path, 17)
    assert (finding.severity, finding.code) == ("error", "convention")
    assert "one frame late" in finding.message
    assert finding.advice == (
        "Pass --motion_units normalized --motion_direction forward --motion_y_axis up --motion_frame_offset 1"
    )
    assert findings(tmp_path, 17, convention) == []


def test_a_scene_that_differs_from_the_others_is_named(demo_scenes, tmp_path):
    first, *others = scenes_of(demo_scenes)
    rewrite(first, tmp_path / "odd", MotionConvention(direction="forward"))
    for number, source in enumerate(others):
        rewrite(source, tmp_path / f"scene_{number}", MotionConvention())
    (finding,) = findings(tmp_path, 17)
    assert (finding.code, finding.scene) == ("convention_differs", "odd")
    assert "forward motion in pixels" in finding.message


def test_what_glides_sideways_tells_everything_but_the_y_axis(tmp_path):
    write_scene(tmp_path / "scene", *gliding(9, 96, 128, 3))
    checked = check_dataset(tmp_path, None, Settings(num_frames=9), workers=1)
    assert checked.verdict.convention == MotionConvention()
    assert {"y_axis", "frame_offset"} == set(checked.verdict.unknown)  # and each frame moves like the next
    (finding,) = checked.findings
    assert (finding.severity, finding.code) == ("note", "convention_open")
    assert "cannot tell --motion_y_axis and --motion_frame_offset: nothing moves up or down" in finding.message
    # Flags that nothing speaks against are not contradicted; flags that something speaks against are.
    assert [each.code for each in findings(tmp_path, 9, MotionConvention(y_axis="up"))] == ["convention_open"]
    assert [each.code for each in findings(tmp_path, 9, MotionConvention(direction="forward"))] == ["convention"]


@pytest.mark.parametrize(
    ("light", "noise", "code"),
    [(1.0, 0.0, "scene_still"), (1.0, 1e-6, "scene_still"), (0.5, 0.0, "motion_zero_light")],
)
def test_nothing_is_claimed_where_nothing_moves(tmp_path, light, noise, code):
    rgb, motion, depth = gliding(9, 64, 64, 3)
    lit = (rgb[:1] * np.linspace(light, 1, 9)[:, None, None, None]).astype(np.uint8)
    motion = np.random.default_rng(0).normal(0, noise, motion.shape).astype(np.float32)
    write_scene(tmp_path / "still", lit, motion, depth[:1].repeat(9, axis=0))
    checked = check_dataset(tmp_path, None, Settings(num_frames=9), workers=1)
    assert checked.verdict.convention is None
    assert {(each.severity, each.code) for each in checked.findings} == {("note", code), ("note", "convention_open")}


def test_very_short_scenes_are_read_and_claim_nothing(tmp_path):
    write_scene(tmp_path / "short", *gliding(2, 64, 64, 3))
    checked = check_dataset(tmp_path, None, Settings(num_frames=5), workers=1)
    assert checked.verdict.scenes == 0
    assert "scene_short" in {each.code for each in checked.findings}


@pytest.mark.parametrize(("scenes", "rests"), [("demo_scenes", True), ("orbit_scenes", False)])
def test_the_check_leaves_out_the_motion_of_nothing_as_training_does(scenes, rests, request):
    base = request.getfixturevalue(scenes)
    operator = create_motion_data_operator(base, 96, 96, 17, frame_stride=1)
    with_sky = 0
    for each in summarise(check_dataset(base, None, Settings(num_frames=17), workers=1))["scenes"]:
        clip = operator(each["scene"])
        nothing, moves = ~clip.depth_valid[1:], clip.motion_valid[1:]
        assert moves[~nothing].float().mean() > 0.95
        assert moves[nothing].all() if rests else not moves[nothing].any()
        assert each["left_out"] == pytest.approx(float((nothing & ~moves).float().mean()), abs=0.01)
        with_sky += bool(nothing.float().mean() > 0.1)
    assert with_sky
