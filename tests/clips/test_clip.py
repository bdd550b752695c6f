"""From a scene to a clip: its contents, alignment of picture, motion and depth, and the operator's settings."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from diffsynth.core.data.operators import DataProcessingOperator, ImageCropAndResize
from PIL import Image

from motion_depth.clips.dataset import MotionDepthClip, create_motion_data_operator
from motion_depth.data.motion import warp
from motion_depth.readouts.targets import Target, Targets
from tests.support.scene_files import (
    FIELDS,
    FRAMES,
    HEIGHT,
    STEP,
    WIDTH,
    gliding,
    make_operator,
    plain_scene,
    same,
    write_scene,
)


class Strip(DataProcessingOperator):
    def __call__(self, data: str) -> str:
        return data.strip()


class CountFrames(DataProcessingOperator):
    def __call__(self, data: MotionDepthClip) -> int:
        return len(data.frames)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A plain scene of 12 frames of 64 x 96, numbered from 40 on."""
    base = tmp_path_factory.mktemp("data")
    plain_scene(base / "ramp", first=40)
    return base


# --- one clip ---------------------------------------------------------------------------------------------------------


def test_a_clip_holds_what_its_description_says(base):
    clip = make_operator(base)("ramp")
    assert clip.scene == "ramp"
    assert clip.frame_ids.tolist() == [40, 42, 44, 46, 48]
    rgb, _, depth = gliding(FRAMES, HEIGHT, WIDTH, STEP)
    np.testing.assert_array_equal(clip.frames.numpy(), rgb[:9:2])
    np.testing.assert_array_equal(clip.depth.numpy(), depth[:9:2])
    assert clip.depth_valid.all()
    assert not clip.motion_valid[0].any()
    # Two files' steps of 2 pixels. What came into the picture in the second of them cannot be followed to the first.
    assert (clip.motion[1:, 0][clip.motion_valid[1:]] == -2 * STEP).all()
    assert torch.equal(clip.motion_valid[1], torch.arange(WIDTH).expand(HEIGHT, WIDTH) >= 2 * STEP)
    assert (clip.motion.movedim(1, -1)[~clip.motion_valid] == 0).all()
    layout = MotionDepthClip.layout(5, HEIGHT, WIDTH)
    assert {name: (getattr(clip, name).shape, getattr(clip, name).dtype) for name in FIELDS} == layout


def test_a_clip_of_wrong_shape_or_type_cannot_be_made(base):
    clip = make_operator(base)("ramp")
    wrong = clip.targets | {"motion": Target(clip.motion, clip.motion_valid.float())}
    with pytest.raises(ValueError, match=r"motion_valid: found .* torch.float32, expected \(5, 64, 96\) torch.bool"):
        MotionDepthClip(clip.frames, Targets(wrong), clip.frame_ids, "ramp")
    with pytest.raises(ValueError, match=r"motion: found \(5, 2, 64, 96\) .*, expected \(4, 2, 64, 96\)"):
        MotionDepthClip(clip.frames[1:], clip.targets, clip.frame_ids, "ramp")


def test_windows_begin_one_frame_after_another(base):
    operator = make_operator(base)
    assert (operator.stride("ramp"), operator.num_windows("ramp")) == (2, 4)
    for window in range(4):
        clip = operator(("ramp", window))
        assert clip.frame_ids.tolist() == [40 + window + 2 * t for t in range(5)]
        assert torch.equal(operator.pictures("ramp", window), clip.frames)
        assert not clip.motion_valid[0].any()
        assert clip.motion_valid[1:].any(dim=(1, 2)).all()
    assert same(operator("ramp"), operator(("ramp", 0)))
    for window in (-1, 4):
        with pytest.raises(ValueError, match=f"scene 'ramp': found window {window}, expected one from 0 to 3"):
            operator(("ramp", window))


def test_the_reference_scene_has_stride_2_and_35_windows(tmp_path):
    plain_scene(tmp_path / "scene", frames=131, size=(4, 4))
    operator = create_motion_data_operator(tmp_path)
    assert (operator.stride("scene"), operator.num_windows("scene")) == (2, 35)


@pytest.mark.parametrize("stride", [1, 2])
def test_only_the_files_that_a_clip_needs_are_read(tmp_path, stride):
    scene = plain_scene(tmp_path / "scene")
    operator = make_operator(tmp_path, frame_stride=stride)
    expected = operator(("scene", 1))
    needed = range(1, 2 + 4 * stride)
    for kind, numbers in (
        ("rgb", needed[::stride]),
        ("motion_vectors", needed[1:]),
        ("distance_to_camera", needed),
    ):
        for number, path in enumerate(sorted((scene / kind).iterdir())):
            if number not in numbers:
                path.write_bytes(b"damaged")
    assert same(operator(("scene", 1)), expected)


def test_motion_is_not_followed_through_what_hid_the_surface_between_two_frames_of_a_clip(tmp_path):
    rgb, motion, depth = gliding(FRAMES, 32, 32, 0)
    depth[:] = 3.0
    depth[3, 10:20, 5:15] = 2.0  # something in front, in the frame between frames 1 and 2 of the clip
    write_scene(tmp_path / "scene", rgb, motion, depth)
    clip = make_operator(tmp_path, 32, 32, frame_stride=2)("scene")
    assert clip.frame_ids.tolist() == [0, 2, 4, 6, 8]
    assert clip.depth_valid.all()
    assert torch.equal(clip.motion_valid[2], torch.from_numpy(depth[3] == 3.0))
    assert clip.motion_valid[[1, 3, 4]].all()


@pytest.mark.parametrize(("offset", "windows"), [(0, 8), (1, 7), (-1, 8)])
def test_motion_may_lie_in_a_neighbouring_frames_file(tmp_path, offset, windows):
    rgb, motion, depth = gliding(FRAMES, 32, 32, 0)
    motion[..., 0] = -0.5 - np.arange(FRAMES)[:, None, None] / 100  # says which file it is
    write_scene(tmp_path / "scene", rgb, motion, depth)
    operator = make_operator(tmp_path, 32, 32, frame_stride=1, motion_frame_offset=offset)
    assert operator.num_windows("scene") == windows
    for window in (0, windows - 1):
        clip = operator(("scene", window))
        files = clip.frame_ids[1:] + offset
        torch.testing.assert_close(clip.motion[1:, 0, 5, 20], -0.5 - files / 100)


def test_the_files_convention_reaches_the_clip(tmp_path):
    rgb, motion, depth = gliding(FRAMES, HEIGHT, WIDTH, STEP)
    motion[..., 0] /= -WIDTH / 2
    write_scene(tmp_path / "scene", rgb, motion, depth)
    clip = make_operator(tmp_path, frame_stride=1, motion_units="ndc", motion_direction="forward")("scene")
    assert torch.allclose(clip.motion[1:, 0][clip.motion_valid[1:]], torch.tensor(-float(STEP)))


# --- picture, motion and depth stay together --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 160)])
def test_pictures_are_scaled_and_cut_as_the_library_does(tmp_path, size):
    rgb, motion, depth = gliding(5, 75, 130, STEP)
    write_scene(tmp_path / "scene", rgb, motion, depth)
    clip = make_operator(tmp_path, *size)("scene")
    for picture, found in zip(rgb, clip.frames, strict=True):
        np.testing.assert_array_equal(found.numpy(), ImageCropAndResize(*size)(Image.fromarray(picture)))


@pytest.mark.parametrize("size", [(64, 64), (64, 192), (160, 96)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_scaled_and_cut_clip_stays_aligned(tmp_path, size, stride):
    write_scene(tmp_path / "scene", *gliding(9, 72, 128, 3))
    clip = make_operator(tmp_path, *size, frame_stride=stride)("scene")
    frames = clip.frames.movedim(-1, 1).float()
    warped, inside = warp(frames[:-1], clip.motion[1:])
    valid = clip.motion_valid[1:]
    assert inside[valid].all()
    assert valid.float().mean() > 0.8
    residual = (warped - frames[1:]).abs().mean(dim=1)[valid].mean()
    unmoved = (frames[:-1] - frames[1:]).abs().mean(dim=1)[valid].mean()
    assert residual < 0.1 * unmoved
    assert residual < 2
    # Depth and red encode the same place; taking the nearest costs up to half a pixel of the file, and 8 bits round.
    slope = 60 / 17 + 40 / 13
    assert (clip.depth - (1 + frames[:, 0] / 100)).abs().max() < (0.5 * slope + 1.5) / 100


def test_nothing_is_made_up_where_nothing_is(tmp_path):
    rgb, motion, depth = gliding(5, 72, 128, 0)
    depth[:, 20:40, 30:90] = np.inf
    motion[:, 10:30, 50:70, 0] = np.nan
    write_scene(tmp_path / "scene", rgb, motion, depth)
    clip = make_operator(tmp_path, 96, 96)("scene")
    assert set(clip.depth[clip.depth_valid].tolist()) <= set(depth[np.isfinite(depth)].tolist())
    assert (clip.depth[~clip.depth_valid] == 0).all()
    assert 0.7 < clip.depth_valid.float().mean() < 0.9
    assert clip.motion.isfinite().all()
    assert 0.9 < clip.motion_valid[1:].float().mean() < 1


@pytest.mark.parametrize("nothing", [1e10, -1.0, 0.0, np.nan, 1e-10, 60_000.0])
def test_whatever_stands_for_nothing_the_clip_is_the_same(tmp_path, nothing):
    """Depth of 1e10 is no surface to follow motion along, and no distance to colour or to learn."""
    rgb, motion, depth = gliding(9, 64, 96, 3)
    depth[:, :24] = np.inf
    write_scene(tmp_path / "inf", rgb, motion, depth)
    noise = np.random.default_rng(0).uniform(1, 1.18, depth.shape)
    write_scene(tmp_path / "other", rgb, motion, np.where(np.isinf(depth), nothing * noise, depth).astype(np.float32))
    for stride in (1, 2):
        operator = make_operator(tmp_path, 64, 64, frame_stride=stride)
        expected, found = operator("inf"), operator("other")
        assert all(torch.equal(getattr(expected, name), getattr(found, name)) for name in FIELDS)
        assert not found.depth_valid[:, :24].any()
        assert found.depth_valid[:, 24:].all()
        assert (found.depth[:, :24] == 0).all()


@pytest.mark.parametrize(("stride", "crop"), [(1, (64, 96)), (2, (64, 96)), (2, (64, 64))])
def test_motion_of_nothing_is_a_target_only_while_the_camera_rests(tmp_path, stride, crop):
    """The camera pans from frame 3 on; renderers write zero for the sky all the while, others how it moves."""
    rgb, motion, depth = gliding(9, 64, 96, 2)
    sky = np.zeros((64, 96), bool)
    sky[:20] = True
    depth[:, sky] = np.inf
    motion[:3] = 0
    motion[3:, sky] = 0
    motion[5:, sky, 0] = -2
    write_scene(tmp_path / "scene", rgb, motion, depth)
    clip = make_operator(tmp_path, *crop, frame_stride=stride)("scene")
    nothing = ~clip.depth_valid
    assert nothing[:, :20].all()
    rested = clip.frame_ids < 3
    assert clip.motion_valid[1:][rested[1:]].all()
    assert clip.motion[nothing[:, None].expand_as(clip.motion)].eq(0).all()
    assert not clip.motion_valid[~rested][nothing[~rested]].any()
    assert clip.motion_valid[~rested][~nothing[~rested]].float().mean() > 0.9


# --- the operator -----------------------------------------------------------------------------------------------------


def test_the_operator_composes_and_can_be_pickled(base):
    operator = make_operator(base)
    assert (operator >> CountFrames())("ramp") == 5
    assert (Strip() >> operator >> CountFrames())(" ramp ") == 5
    assert same(pickle.loads(pickle.dumps(operator))("ramp"), operator("ramp"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 90}, r"--height: found 90, expected a multiple of 32 \(.*\): 64 or 96$"),
        ({"width": 500}, r"--width: found 500, expected a multiple of 32 \(.*\): 480 or 512$"),
        ({"width": 31}, r"--width: found 31, expected a multiple of 32 \(.*\): at least 32$"),
        ({"width": 0}, "--width: found 0, expected a multiple of 32"),
        ({"width": 64.0}, r"--width: found 64\.0"),
        ({"num_frames": 48}, r"--num_frames: found 48, expected 4k\+1"),
        ({"frame_stride": 0}, "--frame_stride: found 0, expected a whole number from 1 on, or auto"),
        ({"frame_stride": "fast"}, "--frame_stride: found 'fast'"),
        ({"motion_units": "cm"}, "--motion_units: found 'cm', expected one of pixels, normalized, ndc"),
    ],
)
def test_a_wrong_setting_names_its_flag(base, settings, message):
    with pytest.raises(ValueError, match=message):
        create_motion_data_operator(base, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 13}, r"scene 'ramp' in .*: found 12 frames, expected at least the 13 of a clip"),
        ({"frame_stride": 3}, r"found 12 frames, expected 13 for 5 frames at --frame_stride 3; .* fits is 2"),
        ({"num_frames": 9, "frame_stride": 2}, "found 12 frames, expected 17 .* fits is 1"),
    ],
)
def test_a_scene_that_is_too_short_is_an_error(base, settings, message):
    with pytest.raises(ValueError, match=message):
        make_operator(base, **settings)("ramp")


def test_a_scene_too_short_for_the_motion_offset_says_so(tmp_path):
    plain_scene(tmp_path / "scene", frames=5)
    assert make_operator(tmp_path).num_windows("scene") == 1
    with pytest.raises(
        ValueError, match="found 4 frames with motion at --motion_frame_offset 1, expected at least the 5"
    ):
        make_operator(tmp_path, motion_frame_offset=1)("scene")
