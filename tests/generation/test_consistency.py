"""Self-consistency: true motion explains a video, wrong motion does not, and depth that is carried along is steady."""

import pytest
import torch

from motion_depth.generation.consistency import difference, self_consistency

FRAMES, HEIGHT, WIDTH = 6, 40, 60
SQUARE = 12


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A textured square at 2 m that moves 3 pixels to the right before a textured wall at 6 m: frames, motion, depth,
    there."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.randint(0, 100, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)
    square = torch.randint(150, 255, (SQUARE, SQUARE, 3), generator=generator, dtype=torch.uint8)
    frames = wall.repeat(FRAMES, 1, 1, 1)
    motion, depth = torch.zeros(FRAMES, 2, HEIGHT, WIDTH), torch.full((FRAMES, HEIGHT, WIDTH), 6.0)
    for t in range(FRAMES):
        place = slice(14, 14 + SQUARE), slice(10 + 3 * t, 10 + 3 * t + SQUARE)
        frames[t][place], depth[t][place] = square, 2.0
        motion[t, 0][place] = -3.0
    return frames, motion, depth, torch.ones_like(depth, dtype=torch.bool)


def test_true_motion_explains_everything_but_what_it_uncovers(clip):
    found = self_consistency(*clip)
    assert found["moving_warp_error"] == 0
    assert found["moving_explained"] == 1
    assert found["moving_still_error"] > 20
    uncovered = 3 * SQUARE / (HEIGHT * WIDTH)
    assert found["depth_steady"] == pytest.approx(1 - uncovered)
    assert found["depth_change"] == pytest.approx(uncovered * torch.tensor(3.0).log().item())
    assert found["moving_share"] == pytest.approx(SQUARE**2 / (HEIGHT * WIDTH))
    assert 0.3 < found["explained"] < 1, "the uncovered wall can be found nowhere"


def test_no_motion_explains_nothing(clip):
    frames, motion, depth, there = clip
    found = self_consistency(frames, torch.zeros_like(motion), depth, there)
    assert found["explained"] == 0
    assert found["moving_share"] == 0
    assert found["moving_explained"] is None
    assert found["depth_change"] == found["depth_change_still"] > 0


def test_motion_to_the_wrong_side_is_worse_than_none(clip):
    frames, motion, depth, there = clip
    assert self_consistency(frames, -motion, depth, there)["explained"] < 0


def test_frame_0_and_what_leaves_the_picture_do_not_count(clip):
    frames, motion, depth, there = clip
    expected = self_consistency(frames, motion, depth, there)
    other = motion.clone()
    other[0] = 1000.0
    assert self_consistency(frames, other, depth, there) == expected
    other[1:, :, :3] = 1000.0
    found = self_consistency(frames, other, depth, there)
    assert found["moving_share"] > expected["moving_share"]
    assert found["moving_warp_error"] == 0


def test_depth_is_compared_only_where_something_is(clip):
    frames, motion, depth, there = clip
    wild = depth.clone()
    wild[2, 30:] = 50.0
    there = there.clone()
    there[2, 30:] = False
    assert self_consistency(frames, motion, wild, there)["depth_change"] < 0.03
    assert self_consistency(frames, motion, wild, torch.zeros_like(there))["depth_change"] is None


def test_a_still_video_is_not_divided_by(clip):
    frames, motion, depth, there = clip
    found = self_consistency(frames[:1].repeat(FRAMES, 1, 1, 1), 0 * motion, depth, there)
    assert found["explained"] is None
    assert found["warp_error"] == 0


def test_difference_of_two_readings(clip):
    _, motion, depth, _ = clip
    found = difference(0 * motion, 1.1 * depth, motion, depth)
    assert found["moving_motion_px"] == pytest.approx(3.0)
    assert found["motion_px"] == pytest.approx(3.0 * SQUARE**2 / (HEIGHT * WIDTH))
    assert found["depth_rel"] == pytest.approx(0.1, rel=1e-4)
    assert difference(motion, depth, 0 * motion, depth)["moving_motion_px"] is None
