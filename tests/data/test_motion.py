"""Motion: conventions on disk, warping, composing over frames with its validity, scaling and cutting."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from motion_depth.data import motion
from motion_depth.data.convention import camera_rests
from motion_depth.data.motion import FrameMotion, MotionConvention, compose, decode_motion, warp


def grid(height: int, width: int) -> Tensor:
    """Pixel coordinates (x, y): float32 (2, H, W)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()


def frame(flow: Tensor, depth: float | Tensor = 3.0, valid: Tensor | None = None) -> FrameMotion:
    """A FrameMotion of flow (2, H, W), by default all valid and at one distance."""
    size = flow.shape[1:]
    depth = torch.full(size, depth) if isinstance(depth, float) else depth
    return FrameMotion(flow, torch.ones(size, dtype=torch.bool) if valid is None else valid, depth)


def still(height: int = 6, width: int = 8) -> Tensor:
    return torch.zeros(2, height, width)


def shifted(x: float, y: float = 0.0, height: int = 6, width: int = 8) -> Tensor:
    return torch.tensor([x, y])[:, None, None].expand(2, height, width).contiguous()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        (MotionConvention(), (2.0, -3.0)),
        (MotionConvention(direction="forward"), (-2.0, 3.0)),
        (MotionConvention(y_axis="up"), (2.0, 3.0)),
        (MotionConvention(direction="forward", y_axis="up"), (-2.0, -3.0)),
        (MotionConvention(units="normalized"), (2.0 * 8, -3.0 * 6)),
        (MotionConvention(units="ndc"), (1.0 * 8, -1.5 * 6)),
        (MotionConvention(units="ndc", direction="forward", y_axis="up"), (-1.0 * 8, -1.5 * 6)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_decoding_a_convention(convention, expected, dtype):
    raw = np.zeros((6, 8, 4), dtype)
    raw[...] = (2.0, -3.0, 77.0, np.nan)
    before = raw.copy()
    flow, valid = decode_motion(raw, convention)
    assert flow.dtype == torch.float32
    assert valid.all()
    torch.testing.assert_close(flow, shifted(*expected), rtol=0, atol=0)
    np.testing.assert_array_equal(raw, before)


def test_vectors_that_are_not_finite_are_invalid_and_zero():
    raw = np.ones((2, 3, 4), np.float32)
    raw[0, 0, 0], raw[0, 1, 1], raw[1, 2, 0] = np.nan, np.inf, -np.inf
    flow, valid = decode_motion(torch.from_numpy(raw), MotionConvention())
    assert valid.tolist() == [[False, False, True], [True, True, False]]
    assert torch.equal(flow, torch.stack([valid, valid]).float())


@pytest.mark.parametrize(
    ("name", "value"),
    [("units", "metres"), ("direction", None), ("y_axis", "left"), ("frame_offset", 2), ("frame_offset", True)],
)
def test_an_unknown_convention_names_its_flag(name, value):
    with pytest.raises(ValueError, match=f"--motion_{name}: found {value!r}, expected one of"):
        MotionConvention(**{name: value})


# --- warp -------------------------------------------------------------------------------------------------------------


def test_warping_by_zero_is_the_identity_bit_for_bit():
    image = torch.randn(2, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    image[0, 0, 0, 0] = -0.0
    warped, inside = warp(image, torch.zeros(2, 2, 37, 53))
    assert inside.all()
    assert torch.equal(warped.view(torch.int32), image.view(torch.int32))


def test_warping_coordinates_gives_the_points_that_the_flow_leads_to():
    flow = torch.randn(3, 2, 20, 30, generator=torch.Generator().manual_seed(1)) * 4
    points = grid(20, 30) + flow
    warped, inside = warp(grid(20, 30).expand(3, 2, 20, 30), flow)
    x, y = points.unbind(dim=1)
    assert torch.equal(inside, (x >= 0) & (x <= 29) & (y >= 0) & (y <= 19))
    assert 0.5 < inside.float().mean() < 1
    torch.testing.assert_close(warped, torch.stack([x.clamp(0, 29), y.clamp(0, 19)], dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_warping_by_a_wild_vector_is_outside_and_finite(bad):
    flow = torch.zeros(1, 2, 6, 8)
    flow[0, 0, 1, 1] = bad
    warped, inside = warp(torch.rand(1, 1, 6, 8), flow)
    assert inside.sum() == 47
    assert not inside[0, 1, 1]
    assert warped.isfinite().all()


def test_warping_is_differentiable_in_image_and_flow():
    image = (grid(6, 8)[:1] * 2.0)[None].requires_grad_()
    flow = torch.full((1, 2, 6, 8), 0.25).requires_grad_()
    warp(image, flow)[0][0, 0, 2, 3].backward()
    assert flow.grad[0, :, 2, 3].tolist() == [2.0, 0.0]
    assert image.grad.sum() == 1


CONVENTIONS = [MotionConvention(), MotionConvention("ndc", "forward", "up")]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("moving", "nothing", "speed", "rests"),
    [
        (0.0, 0.3, 0.0, True),  # nothing moves
        (0.4, 0.3, 5.0, True),  # large things move
        (1.0, 0.3, 0.001, True),  # a renderer's rounding
        (1.0, 0.3, 0.1, False),  # everything moves
        (0.7, 0.3, 0.1, False),  # the camera moves, and carries a gripper
        (0.0, 1.0, 0.0, False),  # nothing is there
    ],
)
def test_the_camera_rests_if_most_of_what_is_there_does(convention, moving, nothing, speed, rests):
    vectors, there = np.zeros((40, 50, 2), np.float32), np.ones((40, 50), bool)
    there[: round(nothing * 40)] = False
    something = np.flatnonzero(there)
    vectors.reshape(-1, 2)[something[: round(moving * len(something))]] = [speed, -speed]
    scale = convention.scale(40, 50)
    vectors /= np.float32(scale)
    vectors[~there] = np.nan  # what stands where nothing is does not count
    assert camera_rests(vectors, there, scale) is rests


# --- compose ----------------------------------------------------------------------------------------------------------


def test_one_frame_is_its_own_composition():
    flow = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(2))
    valid = torch.rand(6, 8, generator=torch.Generator().manual_seed(3)) > 0.3
    composed, composed_valid = compose([frame(flow, valid=valid)])
    assert torch.equal(composed_valid, valid)
    assert torch.equal(composed, flow * valid)


def test_no_motion_composes_to_no_motion_even_at_edges():
    depth = torch.rand(6, 8) * 10
    depth[:, 4:] = 0.0  # nothing there
    composed, valid = compose([frame(still(), depth)] * 4)
    assert valid.all()
    assert torch.equal(composed, still())


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("moving", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_pixels_at_rest_need_not_be_followed(monkeypatch, steps, moving, convention):
    """A part of the pixels move, some of them by no finite vector, before a still background of things and nothing."""
    rng = np.random.default_rng([steps, int(10 * moving)])
    frames = []
    for _ in range(steps):
        vectors, chosen = np.zeros((40, 56, 4), np.float32), rng.random((40, 56)) < moving
        vectors[chosen, :2] = rng.normal(0, 3, (chosen.sum(), 2)) * rng.choice([0, 0.05, 1], (chosen.sum(), 1))
        vectors[rng.random((40, 56)) < 0.01, :2] = [np.nan, 1]
        vectors[rng.random((40, 56)) < 0.01, :2] = -0.0
        depth = np.full((40, 56), 3, np.float32)
        depth[chosen] *= rng.choice([0, 0.9, 0.99, 1], chosen.sum()).astype(np.float32)
        depth[:10] = 0
        frames.append(FrameMotion(*decode_motion(vectors, convention), torch.from_numpy(depth)))
    flow, valid = compose(frames)
    monkeypatch.setattr(motion, "_rests", lambda frames: torch.zeros(40, 56, dtype=torch.bool))
    every_flow, every_valid = compose(frames)
    assert torch.equal(flow, every_flow)
    assert torch.equal(valid, every_valid)
    assert 0 < valid.sum() < valid.numel()


def test_affine_motion_composes_to_the_power_of_its_matrix():
    height, width, steps = 40, 56, 3
    angle, zoom = 0.02, 1.01
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = zoom * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix[:2, 2] = torch.tensor([0.8, -1.3])
    points = torch.cat([grid(height, width), torch.ones(1, height, width)]).double()

    def affine_flow(power: int) -> Tensor:
        moved = torch.einsum("ij,jhw->ihw", torch.linalg.matrix_power(matrix, power), points)
        return (moved - points)[:2]

    composed, valid = compose([frame(affine_flow(1).float())] * steps)
    exact = affine_flow(steps)
    size = torch.tensor([width - 1, height - 1])[:, None, None]
    ends = [points[:2] + affine_flow(power) for power in range(1, steps)]
    inside = torch.stack([((end >= 0) & (end <= size)).all(dim=0) for end in ends]).all(dim=0)
    assert torch.equal(valid, inside)  # the last vector may end outside the picture, the lookups may not
    assert 0.5 < valid.float().mean() < 1
    assert (composed - exact)[:, valid].abs().max() < 1e-4
    assert not composed[:, ~valid].any()


@pytest.mark.parametrize(("shift", "touching"), [(1.0, [3]), (0.5, [3, 4]), (-1.25, [5, 6])])
def test_a_lookup_that_touches_an_invalid_vector_is_invalid_unless_its_weight_is_zero(shift, touching):
    hole = torch.ones(6, 8, dtype=torch.bool)
    hole[:, 4] = False
    _, valid = compose([frame(shifted(shift)), frame(still(), valid=hole)])
    columns = [column for column in range(2, 7) if not valid[0, column]]
    assert columns == touching


def test_an_invalid_vector_stays_invalid():
    hole = torch.ones(6, 8, dtype=torch.bool)
    hole[2, 3] = False
    _, valid = compose([frame(still(), valid=hole), frame(still())])
    assert torch.equal(valid, hole)


def test_a_lookup_between_two_surfaces_is_invalid():
    earlier = still()
    earlier[0, :, 4:] = 3.0
    _, valid = compose([frame(shifted(0.5)), frame(earlier)])
    assert valid[0].tolist() == [True, True, True, False, True, True, True, False]  # the last leaves the picture


@pytest.mark.parametrize(
    ("earlier_depth", "earlier_flow", "expected"),
    [
        (3.0, (0.0, 0.0), True),
        (3.0, (2.0, 0.0), True),  # struck between the two frames
        (2.95, (0.0, 0.0), True),  # comes straight at the camera
        (2.95, (2.0, 0.0), False),  # something else moved past, close before it
        (2.0, (0.0, 0.0), False),  # something else was in front
        (9.0, (0.0, 0.0), False),  # found what is behind
        (0.0, (0.0, 0.0), False),  # found nothing
    ],
)
def test_occlusion_shows_in_distance_and_flow(earlier_depth, earlier_flow, expected):
    _, valid = compose([frame(still(), 3.0), frame(shifted(*earlier_flow), earlier_depth)])
    assert bool(valid[3, 3]) is expected


def test_what_moves_sideways_may_come_nearer_as_fast():
    flow = shifted(4.0, width=80)
    moved, stopped = frame(flow, 3.0), frame(still(width=80), 3.0 * 0.96)
    assert compose([moved, stopped])[1][3, 3]
    assert not compose([frame(still(width=80), 3.0), frame(flow, 3.0 * 0.96)])[1][3, 3]


def test_nothing_there_before_and_after_is_the_same_surface():
    _, valid = compose([frame(still(), 0.0), frame(still(), 0.0)])
    assert valid.all()
