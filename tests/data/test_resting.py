"""The short way to a clip's targets gives what the long one gives: decode every file, chain all of it, convert."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from motion_depth.clips.batch import pack_targets, reduce_item
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.data.arrays import read_picture
from motion_depth.data.motion import FrameMotion, MotionConvention, compose, cover_crop, decode_motion
from motion_depth.data.resting import FrameFiles, compose_files
from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH
from tests.support.cache_setup import same_targets
from tests.support.scene_files import make_operator, plain_scene

SIZE = 40, 56


def frame_files(rng: np.random.Generator, moving: float, convention: MotionConvention) -> FrameFiles:
    """A frame in which a part of the pixels move, some of them by no finite vector, in front of a still background."""
    vectors = np.zeros((*SIZE, 4), np.float32)
    vectors[..., 2:] = 7  # channels that nothing may look at
    chosen = rng.random(SIZE) < moving
    vectors[chosen, :2] = rng.normal(0, 3, (chosen.sum(), 2)) * rng.choice([0, 0.05, 1], (chosen.sum(), 1))
    vectors[rng.random(SIZE) < 0.01, :2] = [np.nan, 1]
    vectors[rng.random(SIZE) < 0.01, :2] = -0.0
    depth = np.full(SIZE, 3, np.float32)
    depth[chosen] *= rng.choice([0, 0.9, 0.99, 1], chosen.sum()).astype(np.float32)
    depth[: SIZE[0] // 4] = 0
    return FrameFiles(vectors[..., :2], depth, convention)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("moving", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("target", [SIZE, (32, 32), (64, 96)])
@pytest.mark.parametrize("convention", [MotionConvention(), MotionConvention("normalized", "forward", "up")])
def test_pixels_at_rest_may_be_left_out(steps, moving, target, convention):
    rng = np.random.default_rng([steps, int(10 * moving), *target])
    frames = [frame_files(rng, moving, convention) for _ in range(steps)]
    crop = cover_crop(SIZE, target)
    points, flow, valid = compose_files(frames, crop)
    found_flow, found_valid = torch.zeros(2, *target), torch.ones(target, dtype=torch.bool)
    found_flow.view(2, -1).index_copy_(1, points, flow)
    found_valid.view(-1).index_copy_(0, points, valid)

    decoded = [FrameMotion(*decode_motion(f.vectors, convention), torch.from_numpy(f.depth)) for f in frames]
    expected_flow, expected_valid = crop.motion(*compose(decoded))
    assert torch.equal(found_valid, expected_valid)
    assert torch.equal(found_flow, expected_flow)
    assert 0 < expected_valid.sum() < expected_valid.numel()


def seen(moving: float, nothing: float, speed: float, convention: MotionConvention) -> FrameFiles:
    """A frame of which some rows hold nothing, with zero vectors; of the others this share moves at this speed."""
    height, width = 40, 50
    pixels = np.zeros((height, width, 2), np.float32)
    depth = np.full((height, width), 3, np.float32)
    depth[: round(nothing * height)] = 0
    something = np.flatnonzero(depth)
    pixels.reshape(-1, 2)[something[: round(moving * len(something))]] = [speed, -speed]
    return FrameFiles(pixels / np.float32(convention.scale(height, width)), depth, convention)


@pytest.mark.parametrize("convention", [MotionConvention(), MotionConvention("ndc", "forward", "up")])
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
    frame = seen(moving, nothing, speed, convention)
    assert frame.camera_rests() is rests
    frame.vectors[:4] = np.nan if nothing else 0.0  # what stands where nothing is does not count
    assert frame.camera_rests() is rests


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_a_compact_clip_holds_the_packed_targets(tmp_path, size):
    plain_scene(tmp_path / "ball")
    far = tmp_path / "ball/distance_to_camera/0004.npy"
    depth = np.load(far)
    depth[:, ::3] = [[FAR_DEPTH - 1], [FAR_DEPTH], [np.inf], [NEAR_DEPTH]] * (len(depth) // 4)
    np.save(far, depth)
    operator = make_operator(tmp_path, *size)
    whole, compact = operator(("ball", 0)), operator.read("ball", 0, compact=True)
    assert whole.depth.dtype == torch.float32
    assert compact.depth.dtype == torch.float16
    assert torch.equal(whole.frames, compact.frames)
    assert same_targets(pack_targets(whole), pack_targets(compact))
    assert not compact.depth_valid.all()


def test_a_worker_hands_over_the_same_sample_in_shared_memory(tmp_path):
    plain_scene(tmp_path / "ball")
    (tmp_path / "a.csv").write_text("video,prompt\nball,A ball.\n")
    dataset = MotionDepthDataset(tmp_path, tmp_path / "a.csv", make_operator(tmp_path), reduce=reduce_item)
    loaded = [sample for (sample,) in DataLoader(dataset, sampler=range(3), num_workers=2, collate_fn=list)]
    for position, sample in enumerate(loaded):
        direct = dataset[position]
        assert sample.frames.is_shared()
        assert not direct.frames.is_shared()
        assert torch.equal(sample.frames, direct.frames)
        assert same_targets(sample.targets, direct.targets)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
@pytest.mark.parametrize("fast", [True, False])
def test_pictures_are_the_same_whoever_decodes_them(tmp_path, monkeypatch, mode, fast):
    rgb = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    path = tmp_path / "0.png"
    image = Image.fromarray(rgb[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(rgb).convert(mode)
    image.save(path)
    if not fast:
        monkeypatch.setattr("motion_depth.data.arrays.kornia_rs", None)
    if mode == "I;16":
        with pytest.raises(ValueError, match="expected 8-bit RGB"):
            read_picture(path)
        return
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(read_picture(path), expected)


def test_a_damaged_picture_is_one_message_whoever_decodes_it(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "0.png"
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
    whole, found = path.read_bytes(), 0
    for end in rng.integers(0, len(whole) - 12, 60):
        damaged = bytearray(whole)
        damaged[end : end + 4] = rng.bytes(4)
        for content in (whole[:end], bytes(damaged)):
            path.write_bytes(content)
            try:
                read_picture(path)
            except ValueError as error:
                found += str(error).startswith(f"{path}: ")
    assert found == 120
