"""Self-consistency: true motion explains a video, wrong motion does not, and depth that is carried along is steady."""

from typing import NamedTuple

import pytest
import torch

from motion_depth.generation.consistency import difference, self_consistency
from motion_depth.readouts.targets import Targets
from tests.support.quantities import motion_and_depth

FRAMES, HEIGHT, WIDTH = 6, 40, 60
SQUARE = 12


class Clip(NamedTuple):
    frames: torch.Tensor
    motion: torch.Tensor
    depth: torch.Tensor
    there: torch.Tensor

    def measure(self, **changes: torch.Tensor) -> dict[str, float | None]:
        return self_consistency(changes.pop("frames", self.frames), self.maps(**changes))

    def maps(self, **changes: torch.Tensor) -> Targets:
        changed = self._replace(**changes)
        return motion_and_depth(changed.motion, None, changed.depth, changed.there)


@pytest.fixture
def clip() -> Clip:
    """A textured square at 2 m that moves 3 pixels to the right before a textured wall at 6 m."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.randint(0, 100, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)
    square = torch.randint(150, 255, (SQUARE, SQUARE, 3), generator=generator, dtype=torch.uint8)
    frames = wall.repeat(FRAMES, 1, 1, 1)
    motion, depth = torch.zeros(FRAMES, 2, HEIGHT, WIDTH), torch.full((FRAMES, HEIGHT, WIDTH), 6.0)
    for t in range(FRAMES):
        place = slice(14, 14 + SQUARE), slice(10 + 3 * t, 10 + 3 * t + SQUARE)
        frames[t][place], depth[t][place] = square, 2.0
        motion[t, 0][place] = -3.0
    return Clip(frames, motion, depth, torch.ones_like(depth, dtype=torch.bool))


def test_true_motion_explains_everything_but_what_it_uncovers(clip):
    found = clip.measure()
    assert found["moving_warp_error"] == 0
    assert found["moving_explained"] == 1
    assert found["moving_still_error"] > 20
    uncovered = 3 * SQUARE / (HEIGHT * WIDTH)
    assert found["depth_steady"] == pytest.approx(1 - uncovered)
    assert found["depth_change"] == pytest.approx(uncovered * torch.tensor(3.0).log().item())
    assert found["moving_share"] == pytest.approx(SQUARE**2 / (HEIGHT * WIDTH))
    assert 0.3 < found["explained"] < 1, "the uncovered wall can be found nowhere"


def test_no_motion_explains_nothing(clip):
    found = clip.measure(motion=torch.zeros_like(clip.motion))
    assert found["explained"] == 0
    assert found["moving_share"] == 0
    assert found["moving_explained"] is None
    assert found["depth_change"] == found["depth_change_still"] > 0


def test_motion_to_the_wrong_side_is_worse_than_none(clip):
    assert clip.measure(motion=-clip.motion)["explained"] < 0


def test_frame_0_and_what_leaves_the_picture_do_not_count(clip):
    expected, other = clip.measure(), clip.motion.clone()
    other[0] = 1000.0
    assert clip.measure(motion=other) == expected
    other[1:, :, :3] = 1000.0
    found = clip.measure(motion=other)
    assert found["moving_share"] > expected["moving_share"]
    assert found["moving_warp_error"] == 0


def test_depth_is_compared_only_where_something_is(clip):
    wild, there = clip.depth.clone(), clip.there.clone()
    wild[2, 30:], there[2, 30:] = 50.0, False
    assert clip.measure(depth=wild, there=there)["depth_change"] < 0.03
    assert clip.measure(depth=wild, there=torch.zeros_like(there))["depth_change"] is None


def test_a_still_video_is_not_divided_by(clip):
    found = clip.measure(frames=clip.frames[:1].repeat(FRAMES, 1, 1, 1), motion=0 * clip.motion)
    assert found["explained"] is None
    assert found["warp_error"] == 0


def test_difference_of_two_readings(clip):
    found = difference(clip.maps(motion=0 * clip.motion, depth=1.1 * clip.depth), clip.maps())
    assert found["moving_motion_px"] == pytest.approx(3.0)
    assert found["motion_px"] == pytest.approx(3.0 * SQUARE**2 / (HEIGHT * WIDTH))
    assert found["depth_rel"] == pytest.approx(0.1, rel=1e-4)
    assert difference(clip.maps(), clip.maps(motion=0 * clip.motion))["moving_motion_px"] is None
