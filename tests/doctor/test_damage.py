"""The dataset check names every kind of damage with its file, and finds nothing wrong with sound scenes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from motion_depth.data.findings import Finding
from motion_depth.data.scene import DEPTH
from motion_depth.doctor.check import DatasetCheck, Settings, check_dataset
from motion_depth.doctor.quick import quick_check
from motion_depth.doctor.report import summarise, text, thumbnail
from tests.support.damages import DAMAGES, IN_HEADERS, SCENE, Damage, change
from tests.support.scene_files import link_files, write_scene

CLIP = 17  # frames; the scene has one more


@pytest.fixture
def base(demo_scenes, tmp_path) -> Path:
    """A folder with one sound scene; its files are links, to be replaced and not written to."""
    link_files(demo_scenes / SCENE, tmp_path / SCENE)
    return tmp_path


def check(base: Path) -> DatasetCheck:
    return check_dataset(base, None, Settings(num_frames=CLIP), workers=1)


def expect(damage: Damage, found: list[Finding]) -> None:
    assert [each for each in found if each.code == damage.code and damage.says in str(each)], "\n".join(map(str, found))


def test_sound_scenes_give_no_finding(demo_scenes):
    assert check(demo_scenes).findings == []


def test_what_is_hidden_for_a_frame_has_not_lost_its_motion(tmp_path):
    """A block slides behind a screen and comes out on the other side; its shadow on the ground is seen throughout."""
    frames, height, width = CLIP + 1, 64, 96
    depth = np.full((frames, height, width), 5.0, np.float32)
    motion = np.zeros((frames, height, width, 4), np.float32)
    picture = np.full((frames, height, width, 3), 90, np.uint8)
    screen = slice(None), slice(10, 40), slice(30, 48)
    for t in range(frames):
        block = t, slice(20, 32), slice(6 + 3 * t, 22 + 3 * t)
        depth[block], picture[block], motion[block][..., 0] = 4.0, 200, -3.0 if t else 0.0
        picture[t, 50:56, block[2]] = 40
    depth[screen], motion[screen], picture[screen] = 3.0, 0.0, 150
    assert [t for t in range(1, frames) if not motion[t].any()] == [8]
    write_scene(tmp_path / "slide", picture, motion, depth)
    assert "motion_dropped" not in {each.code for each in check(tmp_path).findings}


@pytest.mark.parametrize(("value", "called"), [(1e10, "60 km or more"), (1e-10, "below 0.061 mm")])
def test_a_sky_at_a_distance_that_cannot_be_is_nothing_to_every_part_of_the_check(base, value, called):
    sound, rng = check(base), np.random.default_rng(0)

    def fill(depth: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(depth), value * rng.uniform(1, 1.18, depth.shape), depth).astype(np.float32)

    change(base / SCENE, DEPTH, fill)
    filled = check(base)
    assert filled.findings == sound.findings
    (before,), (after,) = summarise(sound)["scenes"], summarise(filled)["scenes"]
    assert after["nothing"] == {called: before["nothing"]["inf"]}
    assert after | {"nothing": before["nothing"]} == before
    convention = filled.settings.convention
    assert thumbnail(filled.measures[0], convention) == thumbnail(sound.measures[0], convention)


def test_a_scene_of_sky_alone_has_no_depth_to_show(base):
    change(base / SCENE, DEPTH, lambda depth: np.full_like(depth, 1e10))
    assert re.search(r"^ERROR .*%  no depth  nothing 100%", text(check(base)), re.MULTILINE)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_damage_is_named_with_its_file(base, damage):
    damage.do(base / SCENE)
    expect(damage, check(base).findings)


@pytest.mark.parametrize("damage", [each for each in DAMAGES if each.code in IN_HEADERS], ids=lambda each: each.name)
def test_the_check_before_training_says_the_same(base, damage):
    damage.do(base / SCENE)
    found = quick_check(base, [SCENE], num_frames=CLIP)
    expect(damage, found)
    assert {each.row for each in found} == {1}
